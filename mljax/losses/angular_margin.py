"""Asymmetric angular margin loss: cosines, kept apart by a margin, with ASL's focusing.

Prokofiev and Sovrasov, "Combining Metric Learning and Attention Heads For Accurate and Efficient
Multilabel Image Classification", https://arxiv.org/abs/2209.06585.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mljax.losses.asymmetric import focusing_weight, smooth_labels


def angular_margin_loss(
    cosines: Float[Array, "b k"],
    labels: Float[Array, "b k"],
    scale: Float[Array, ""] | float,
    mixed_with: Int[Array, " b"] | None = None,
    mixed_share: Float[Array, ""] | float = 1.0,
    *,
    margin: float = 0.35,
    present_share: float = 0.8,
    gamma_neg: float = 0.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    smoothing: float = 0.0,
    printed_exponents: bool = False,
) -> Float[Array, "b k"]:
    """Returns the asymmetric angular margin loss (AAM) of every class of every image.

    With s the scale, p = sigmoid(s (cosine - margin)) and q = sigmoid(-s (cosine + margin)), a
    present class costs -(present_share / s) q'^gamma_pos log(p) and an absent one
    -((1 - present_share) / s) p^gamma_neg log(q'), where q' = min(q + clip, 1). It is at least 0.
    Both gammas at 0 give the plain angular margin loss (AM), which knows no clip.

    Prokofiev and Sovrasov 2022, equation 1, https://arxiv.org/abs/2209.06585;
    tosfaq/deep-object-reid (branch multilabel-paper) torchreid/losses/asl.py, `AMBinaryLoss`, whose
    scalar is the sum over batch and classes. The defaults are that class's; the paper trains with
    margin 0, present_share 0.7, gamma_neg 1 or 2, gamma_pos 0 or 1 and scale 17 to 25.

    The code that made the published figures differs from the printed equation: there the present
    classes have the exponent gamma_neg and the absent ones gamma_pos (`printed_exponents`), and
    nothing is clipped (`clip=0`).

    Differs from the reference:
      - Logarithms are log-sigmoids, equal where the original is finite. At scales above 88 its
        float32 loss is nan once a sigmoid underflows.
      - Where a focusing weight is 0 and its exponent below 1, the original's gradient is nan; here
        it is 0.
      - A batch without annotated labels costs 0; the original then fails.
      - The scale is that of the head for good; the original's call may replace it.
      - Nothing here mixes images, which no published setting of the original does either. A
        gradient wrapper of your own can: it puts the mixed images and `mixed_with` into the batch.

    Args:
      cosines: of a normalized head, before any scale; in [-1, 1] but for a bias that the head may
        add. Below float32 they are computed in float32.
      labels: 1 present, 0 absent, -1 unannotated: costs 0. Between 0 and 1 a soft label mixes both
        costs and interpolates the exponent.
      scale: above 0; the head gives it, so that the scores of a prediction have the same one.
      mixed_with: numbers of the images that each image was mixed with, where the batch has such.
        Parity: an unannotated label mixed with another counts as 0 or more, so as annotated.
      mixed_share: share of the image itself in the mixture, in [0, 1].
      margin: on the cosine, at least 0.
      present_share: weight of the present classes, in [0, 1]; the absent ones have the rest.
      gamma_neg: focusing exponent of absent classes, at least 0.
      gamma_pos: focusing exponent of present classes, at least 0.
      clip: probability shift of absent classes, in [0, 1); used if a gamma is above 0.
      smoothing: present labels become 1 minus this, absent ones this (not this / k); in [0, 1).
      printed_exponents: exchange the two gammas, as equation 1 is printed.
    """
    cosines = cosines.astype(jnp.float64 if cosines.dtype == jnp.float64 else jnp.float32)
    scale, labels = jnp.asarray(scale, cosines.dtype), labels.astype(cosines.dtype)
    if mixed_with is not None:
        share = jnp.asarray(mixed_share, cosines.dtype)
        mixed = labels * share + labels[mixed_with] * (1 - share)
        labels = jnp.clip(mixed, 0, 1)
    annotated = labels >= 0
    present = jnp.where(annotated, smooth_labels(labels, smoothing), 0)
    absent = 1 - present
    log_p = jax.nn.log_sigmoid(scale * (cosines - margin))
    log_q = jax.nn.log_sigmoid(-scale * (cosines + margin))
    weight = jnp.ones_like(cosines)
    if gamma_neg > 0 or gamma_pos > 0:
        q = jnp.exp(log_q)
        if clip:
            # Selecting, unlike a minimum, passes the whole gradient at equality, as torch's clamp.
            q = jnp.where(q + clip > 1, 1.0, q + clip)
            log_q = jnp.log(q)
        if printed_exponents:
            gamma_neg, gamma_pos = gamma_pos, gamma_neg
        weight = focusing_weight(
            q * present + jnp.exp(log_p) * absent, gamma_pos * present + gamma_neg * absent
        )
    loss = present_share * present * log_p + (1 - present_share) * absent * log_q
    return jnp.where(annotated, -weight * loss / scale, 0.0)
