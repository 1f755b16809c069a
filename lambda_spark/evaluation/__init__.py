"""Measuring recommendations: protocols, methods, baselines, metrics and the search for settings.

May import: the layers, storage, synthetic and the ground modules.
"""
