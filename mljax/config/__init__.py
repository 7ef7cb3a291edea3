"""Recipes as typed, frozen dataclasses, and the parts that they name."""
