"""Commands about a whole lake: verify, status, history, maintain, forget, restore, migrate.

This package may import the layers, storage and the ground modules. No layer imports this package.
"""
