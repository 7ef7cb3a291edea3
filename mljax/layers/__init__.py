"""Blocks that several networks share. Feature maps are NHWC."""
