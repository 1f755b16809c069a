"""Replay of event files as a live feed, in plain Python: without Spark it starts at once and needs little memory.

May import: the ground modules and cli.
"""
