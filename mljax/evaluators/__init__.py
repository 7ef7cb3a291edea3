"""What is measured of a network on a split."""
