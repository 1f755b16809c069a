"""The speed layer: counts in micro-batches which products appear in the same basket.

Modules of this package may import `lambda_spark.storage` and the modules directly in `lambda_spark`.
"""
