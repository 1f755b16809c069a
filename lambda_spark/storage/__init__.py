"""Storage of the lake: its Delta tables, their logs, and the locks, checkpoints and streams of the jobs.

Of the rest of the project, modules of this package may import only the modules directly in `lambda_spark`.
"""
