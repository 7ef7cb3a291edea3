"""The device mesh, processes, and compiled programs."""
