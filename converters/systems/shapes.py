"""Facts that names and shapes of a state dict tell."""

from collections.abc import Iterable

from converters.systems.system import Tensors


def has(names: Iterable[str], *prefixes: str) -> bool:
    """Returns whether any name starts with one of the prefixes."""
    return any(name.startswith(prefixes) for name in names)


def count_blocks(names: Iterable[str], prefix: str) -> int:
    """Returns one more than the highest index that follows `prefix`; 0 if none does."""
    indices = [name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)]
    return max((int(index) + 1 for index in indices if index.isdecimal()), default=0)


def count_outputs(tensors: Tensors, layer: str, name: str, what: str = "classifier") -> int:
    """Returns the number of outputs of a linear layer, from its weight or its bias.

    Args:
      tensors: the state dict.
      layer: the layer's path.
      name: of the source, for messages.
      what: the layer is, for messages.

    Raises:
      ValueError: if neither is there.
    """
    for key in (f"{layer}.weight", f"{layer}.bias"):
        if key in tensors and tensors[key].ndim:
            return tensors[key].shape[0]
    raise ValueError(f"{name}: has no {what}: neither {layer}.weight nor {layer}.bias")


def without(prefix: str, tensors: Tensors) -> Tensors:
    """Returns the tensors under a prefix, without it in their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
