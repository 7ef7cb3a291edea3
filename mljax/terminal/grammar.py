"""Words that depend on numbers."""


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: `1 image`, `2 images`, `3 classes`.

    Args:
      number: how many.
      noun: in the singular; its plural ends with s, or after an s with es.
    """
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
