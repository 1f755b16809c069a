"""Reads the command line of every job, starts the job, and prints its summary or failure.

This package may import every other package except `replay`. The scripts in `jobs/` import this package.
"""
