"""Selective loss: which unannotated labels to learn from as absent, and which to leave out.

Ben-Baruch et al., "Multi-label Classification with Partial Annotations using Class-aware Selective
Loss", https://arxiv.org/abs/2110.10955; Alibaba-MIIL/PartialLabelingCSL
partial_asymmetric_loss.py, `PartialSelectiveLoss`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mljax.losses.asymmetric import asymmetric_loss

Prior = Float[Array | np.ndarray, " classes"]


def selective_loss(
    logits: Float[Array, "b k"],
    labels: Float[Array, "b k"],
    valid: Bool[Array, " b"] | None = None,
    *,
    gamma_pos: float = 0.0,
    gamma_neg: float = 1.0,
    gamma_unannotated: float = 2.0,
    alpha_pos: float = 1.0,
    alpha_neg: float = 1.0,
    alpha_unannotated: float = 1.0,
    clip: float | None = 0.0,
    mode: str = "negative",
    prior: Prior | None = None,
    prior_threshold: float = 0.05,
    likelihood_topk: int = 5,
    per_sample: bool = False,
) -> Float[Array, "b k"]:
    """Returns the partial asymmetric loss of every class of every image, at least 0.

    Present, absent and unannotated labels have their own focusing exponent (gamma) and factor
    (alpha) in an asymmetric loss that counts unannotated labels as absent; `partial_label_weights`
    then says how much each entry counts.

    Ben-Baruch et al. 2021, the partial asymmetric loss and the selective approach,
    https://arxiv.org/abs/2110.10955; Alibaba-MIIL/PartialLabelingCSL partial_asymmetric_loss.py,
    whose scalar is the sum over batch and classes. The published COCO recipes use gamma_neg 3 (a
    fixed number of labels per class) or 1 (random labels), gamma_unannotated 4, mode `selective`,
    prior_threshold 0.5.

    Args:
      logits: before the sigmoid; below float32 they are computed in float32.
      labels: 1 present, 0 absent, -1 unannotated.
      valid: False for rows of padding, which spend no likelihood budget; None for no padding.
      gamma_pos: focusing exponent of present labels, at least 0; the focusing weight is a constant
        for the gradient.
      gamma_neg: likewise of absent labels.
      gamma_unannotated: likewise of unannotated labels.
      alpha_pos: factor of the loss of present labels.
      alpha_neg: likewise of absent labels.
      alpha_unannotated: likewise of unannotated labels.
      clip: probability shift of absent and unannotated labels, in [0, 1); None or 0 is none.
      mode: see `partial_label_weights`, as for all that follow.
      prior: class frequencies.
      prior_threshold: on the prior.
      likelihood_topk: unannotated labels to leave out, per image.
      per_sample: leave out so many in every image, instead of in the mean over the batch.

    Raises:
      ValueError: for an unknown mode or a prior of another number of classes.
    """
    weights = partial_label_weights(
        logits,
        labels,
        valid,
        mode=mode,
        prior=prior,
        prior_threshold=prior_threshold,
        likelihood_topk=likelihood_topk,
        per_sample=per_sample,
    )
    asymmetric = functools.partial(asymmetric_loss, logits, gamma_pos=gamma_pos, clip=clip)
    unannotated = labels == -1
    # An asymmetric loss is 0 where the label is -1, so that each entry is in one of the two.
    as_absent = jnp.where(unannotated, 0.0, -1.0)
    loss = jnp.where(labels == 1, alpha_pos, alpha_neg) * asymmetric(labels, gamma_neg=gamma_neg)
    loss += alpha_unannotated * asymmetric(as_absent, gamma_neg=gamma_unannotated)
    return loss * weights


def partial_label_weights(
    logits: Float[Array, "b k"],
    labels: Float[Array, "b k"],
    valid: Bool[Array, " b"] | None = None,
    *,
    mode: str = "negative",
    prior: Prior | None = None,
    prior_threshold: float = 0.05,
    likelihood_topk: int = 5,
    per_sample: bool = False,
) -> Float[Array, "b k"]:
    """Returns how much each entry counts in the selective loss.

    - `negative`: everything counts 1.
    - `ignore`: unannotated entries count 0.
    - `ignore_normalize_classes`: likewise, and the others 1 + 1 / (1 + number of annotated labels
      of the image): Durand et al., "Learning a Deep ConvNet for Multi-label Classification with
      Partial Labels", https://arxiv.org/abs/1902.09720, with alpha = beta = 1.
    - `selective`: unannotated entries count 0 in classes that are frequent by the prior, and where
      they are among the likeliest; everything else counts 1.

    Only `selective` reads the arguments that follow.

    Args:
      logits: of the whole (global) batch, or of a micro-batch under `micro_batches`; before
        the sigmoid.
      labels: 1 present, 0 absent, -1 unannotated.
      valid: False for rows of padding, which spend no budget; None for no padding.
      mode: one of the above.
      prior: `[k]` class frequencies in [0, 1]; None leaves that part out. In a config
        `part(prior_csv, path=...)` reads them.
      prior_threshold: classes with a prior above it are frequent; 0 leaves that part out (Parity).
      likelihood_topk: t. The t * b likeliest unannotated entries of the batch count 0; b counts
        valid rows. Parity: entries that the prior has left out already use up the budget. Of equal
        logits the first in row-major order is taken, where the original's sort is unstable.
      per_sample: take the t likeliest of each image instead, as the paper has it; the original
        lets images with many likely classes use the budget of the others.

    Raises:
      ValueError: for an unknown mode, a negative budget, or a prior of another number of classes.
    """
    modes: dict[str, Callable[[Float[Array, "b k"]], Float[Array, "b k"]]] = {
        "negative": jnp.ones_like,
        "ignore": _ignore_weights,
        "ignore_normalize_classes": _normalized_weights,
        "selective": functools.partial(
            _selective_weights,
            logits,
            valid,
            prior=prior,
            prior_threshold=prior_threshold,
            topk=likelihood_topk,
            per_sample=per_sample,
        ),
    }
    if mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(modes)}, got {mode!r}")
    return modes[mode](labels.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def _ignore_weights(labels: Float[Array, "b k"]) -> Float[Array, "b k"]:
    return (labels != -1).astype(labels.dtype)


def _normalized_weights(labels: Float[Array, "b k"]) -> Float[Array, "b k"]:
    annotated = _ignore_weights(labels)
    return annotated * (1 + 1 / (1 + annotated.sum(1, keepdims=True)))


def _selective_weights(
    logits: Float[Array, "b k"],
    valid: Bool[Array, " b"] | None,
    labels: Float[Array, "b k"],
    *,
    prior: Prior | None,
    prior_threshold: float,
    topk: int,
    per_sample: bool,
) -> Float[Array, "b k"]:
    if topk < 0:
        raise ValueError(f"likelihood_topk must be at least 0, got {topk}")
    frequent = _frequent_classes(prior, prior_threshold, labels.shape[1])
    unannotated = labels == -1
    rows = jnp.ones(labels.shape[0], bool) if valid is None else valid
    # Ranking logits, not probabilities, keeps an order where the sigmoid saturates.
    candidates = jnp.where(unannotated & rows[:, None], logits, -jnp.inf)
    if per_sample:
        likely = jax.vmap(_top_entries, (0, None, None))(candidates, topk, topk)
    else:
        most = topk * labels.shape[0]
        likely = _top_entries(candidates.reshape(-1), most, topk * rows.sum())
        likely = likely.reshape(labels.shape)
    ignored = unannotated & (likely | frequent[None, :])
    return 1 - ignored.astype(labels.dtype)


def _top_entries(
    scores: Float[Array, " n"], most: int, count: int | Int[Array, ""]
) -> Bool[Array, " n"]:
    """Marks the `count` largest scores; `most` is the largest count that can be asked for."""
    indices = jax.lax.top_k(jax.lax.stop_gradient(scores), min(most, scores.size))[1]
    taken = jnp.arange(indices.size) < count
    return jnp.zeros(scores.shape, bool).at[indices].set(taken)


def _frequent_classes(prior: Prior | None, threshold: float, k: int) -> Bool[Array, " k"]:
    if prior is None or not threshold:
        return jnp.zeros(k, bool)
    values = jnp.asarray(prior)
    if values.shape != (k,):
        raise ValueError(f"prior: expected one value for each of {k} classes, got {values.shape}")
    return values > threshold
