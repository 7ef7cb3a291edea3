"""What the gradients of AAM's golden heads are of, written from the published facts."""

import jax
import jax.numpy as jnp
import numpy as np


def angular_margin(cosines, targets, scale, gamma_neg, gamma_pos):
    """Returns the summed loss with k 0.7 and margin 0; with focusing, p- is shifted by 0.05."""
    positive = jax.nn.sigmoid(scale * cosines)
    negative = jnp.minimum(jax.nn.sigmoid(-scale * cosines) + 0.05, 1)
    base = negative * targets + positive * (1 - targets)
    weight = base ** (gamma_pos * targets + gamma_neg * (1 - targets))
    present = 0.7 / scale * targets * jnp.log(positive)
    absent = 0.3 / scale * (1 - targets) * jnp.log(negative)
    return -((present + absent) * weight).sum()


def asymmetric(logits, targets):
    """Returns the summed asymmetric loss of that code base, with its defaults 4, 0 and 0.05."""
    positive = jax.nn.sigmoid(logits)
    negative = jnp.minimum(1 - positive + 0.05, 1)
    log = targets * jnp.log(positive) + (1 - targets) * jnp.log(negative)
    weight = (1 - positive * targets - negative * (1 - targets)) ** (4 * (1 - targets))
    return -(log * weight).sum()


def summary(array, count):
    """Returns mean, population deviation, largest magnitude and the first entries."""
    flat = np.ravel(array)
    return np.concatenate([[flat.mean(), flat.std(), np.abs(flat).max()], flat[:count]])
