"""Ingestion: event files or a Kafka topic become validated events, each stored once.

May import: storage and the ground modules.
"""
