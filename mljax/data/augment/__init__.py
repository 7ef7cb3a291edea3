"""Random changes of a training image, as the published systems make them."""
