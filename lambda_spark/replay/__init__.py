"""Event files played as a live feed. Plain Python: no Spark, so that it starts at once and takes little."""
