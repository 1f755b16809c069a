"""How and where the lake's tables are kept: Delta tables, their logs, locks, checkpoints and streams.

May import: the ground modules.
"""
