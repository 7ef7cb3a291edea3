"""Classifiers: a backbone and a head by name, their arrays, and inference."""
