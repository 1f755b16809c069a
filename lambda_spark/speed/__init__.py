"""The speed layer: item co-interaction, kept up to date in micro-batches.

May import: storage and the ground modules.
"""
