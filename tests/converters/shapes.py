"""State dicts of shapes alone, and what they are found to be."""

import numpy as np

from converters.models import detect
from tests import golden


def detected(tensors, name="the source", **arguments):
    """Returns the detection, without its system."""
    return detect(tensors, name, **arguments)[1]


def shapes(names):
    """Returns a state dict whose arrays take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in names.items()}


def shapes_of(tensors):
    """Returns a state dict of the same shapes whose arrays take no memory."""
    return shapes({name: np.shape(array) for name, array in tensors.items()})


def full_size(case, column=0):
    rows = golden.cases("tresnet_names")[case]["extra"]["names"]
    return shapes({name[column]: name[2] for name in rows})


def golden_shapes(group, case):
    params = golden.cases(group)[case]["params"]
    return shapes({name: shape for name, (shape, _) in params.items()})
