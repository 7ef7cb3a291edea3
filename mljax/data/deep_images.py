"""What is said of images with more than eight bits a channel: once in a run, with their number."""

import warnings


class DeepImages:
    """Warns of the first image whose values were scaled by a guess, and at the end counts them."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, note: str) -> None:
        """Takes an image; one that is there already is not counted again.

        Args:
          name: of the image.
          note: what was done to it.
        """
        if not self._names:
            warnings.warn(f"{note} (the next such images are only counted)", stacklevel=2)
        self._names.add(name)

    def close(self) -> None:
        """Warns of their number, if there is more than the one that was named."""
        count = len(self._names)
        self._names.clear()
        if count > 1:
            warnings.warn(
                f"{count} images of more than eight bits a channel were read like the first one",
                stacklevel=2,
            )
