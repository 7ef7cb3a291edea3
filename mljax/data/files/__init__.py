"""What the readers share: tables, paths, arrays."""
