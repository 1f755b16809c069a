"""Event files played as a live feed. Plain Python without Spark: it starts at once and needs little memory.

May import: the ground modules and cli.
"""
