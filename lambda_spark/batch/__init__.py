"""The batch layer: demand and trends per time bucket.

Modules of this package may import `lambda_spark.storage` and the modules directly in `lambda_spark`.
"""
