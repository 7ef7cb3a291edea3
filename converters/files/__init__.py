"""Torch files: opened without running their code, and what they hold."""
