"""Commands about a whole lake: verify, status, history, maintain, forget, restore, migrate.

May import: the layers, storage and the ground modules. No layer imports it.
"""
