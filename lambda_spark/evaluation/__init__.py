"""How good recommendations are: protocols, methods, baselines, metrics, tuning.

May import: the layers, storage, synthetic and the ground modules.
"""
