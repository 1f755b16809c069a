"""Inspection: looks at a sample of a log, without Spark, and proposes a source description for it.

    sample (DuckDB) ──► fields, times, event_words ──► proposal ──► judge: what would become of the records

Modules of this package may import the modules directly in `lambda_spark`.
"""
