"""Event files played as a live feed, in plain Python without Spark, so that it starts at once and needs little memory.

May import: the ground modules and cli.
"""
