"""Measuring recommendations and trends: protocols, baselines, metrics."""
