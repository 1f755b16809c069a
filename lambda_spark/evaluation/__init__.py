"""Measuring recommendations: protocols, methods, baselines, metrics and the search for settings.

This package may import the layers, storage, synthetic and the ground modules.
"""
