"""The serving layer: the batch and the speed view joined into recommendations. It reads their tables, never their code.

May import: storage and the ground modules.
"""
