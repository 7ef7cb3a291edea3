"""Kinds of arrays that a network saves but never trains."""

from flax import nnx


class Frozen(nnx.Variable):
    """An array that is saved with the parameters but never trained."""


class OfClasses(Frozen):
    """A frozen array that belongs to the classes, such as a vector of each.

    A head's `for_classes` makes it anew for other classes; the trained parameters serve all.
    """
