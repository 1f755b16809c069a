"""Replays event files as a live feed. The replay is plain Python, so it starts at once and needs little memory.

Modules of this package may import `lambda_spark.cli` and the modules directly in `lambda_spark`.
"""
