"""Inputs of the published operations, in torch's order of axes and in ours."""

import jax.numpy as jnp
import numpy as np

from tests import golden


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def inputs(case):
    return {
        name: golden.fill_input(*entry["fill"])
        for name, entry in golden.cases("tresnet_ops")[case]["inputs"].items()
        if "fill" in entry
    }
