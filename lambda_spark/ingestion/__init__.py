"""Ingestion: reads event files or a Kafka topic, validates the events, and stores each event once.

Modules of this package may import `lambda_spark.storage` and the modules directly in `lambda_spark`.
"""
