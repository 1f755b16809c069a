"""The batch layer: demand and trends per time bucket.

May import: storage and the ground modules.
"""
