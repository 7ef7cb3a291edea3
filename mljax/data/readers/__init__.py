"""One file a format on disk: `reader(split, **kwargs) -> Records`."""
