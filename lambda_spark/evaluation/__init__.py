"""Measuring the store recommender: generated stores with a planted truth, and what is found of it."""
