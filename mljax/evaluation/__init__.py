"""Runs a network over a split."""
