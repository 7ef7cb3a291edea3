"""Contrastive losses of a batch: SupCon, SimCLR as its limit, MulCon's, and their core.

Khosla et al., "Supervised Contrastive Learning", https://arxiv.org/abs/2004.11362, file `losses.py`
of HobbitLong/SupContrast.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

# Positives of one anchor count as none below this sum, as in the reference.
_NO_POSITIVES = 1e-6


def supervised_contrastive_loss(
    projections: Float[Array, "n *d"],
    labels: Shaped[Array, "n *k"] | None = None,
    valid: Bool[Array, " n"] | None = None,
    mask: Shaped[Array, "n n"] | None = None,
    *,
    views: int = 1,
    anchor_views: int | None = None,
    temperature: float = 0.07,
    base_temperature: float = 0.07,
    mean_inside_log: bool = False,
    chunk_size: int = 256,
) -> Float[Array, " a"]:
    """Draws the views of an image, and images of one label, nearer than all other pairs.

    With s(i, j) = z_i . z_j / temperature and P(i) the other rows that share an image or a label
    with i, an anchor i costs

        temperature / base_temperature * mean over p in P(i) of -ln(exp s(i, p) / sum over j != i of
        exp s(i, j)),

    which is L_out, equation 2. An anchor without positives costs 0. Without labels and mask only
    the views of one image are positives: SimCLR's loss (https://arxiv.org/abs/2002.05709, equation
    1), which `labels=None` chooses in a config.

    Args:
      projections: one row a view; the views of an image follow each other. The reference
        normalizes them in the network (the head `projection`), not in the loss. More axes are
        flattened.
      labels: of each row: `[n]` class numbers, or `[n, k]` with 1 for a class that is present. Rows
        share a label if any is present in both. A row without one has its image's views alone.
      valid: rows that are not valid are neither anchors nor compared with.
      mask: weights of the pairs (anchor, other) in the place of labels, at least 0, perhaps not
        symmetric; the diagonal does not count.
      views: rows of each image.
      anchor_views: how many views of each image are anchors: None for all, the reference's
        contrast mode `all`; 1 is its mode `one`.
      temperature: divides the similarities, above 0.
      base_temperature: above 0. Parity: the published training leaves it at 0.07 whatever the
        temperature, so at 0.1 the loss is 1.43 times that of the paper.
      mean_inside_log: L_in, equation 3: the logarithm of the mean over the positives. It is at most
        L_out, which the paper finds better.
      chunk_size: anchors at a time, whose similarities are held in memory (and computed again for
        the gradient). The compiler of CPUs takes seven arrays `[chunk_size, n]`.

    Returns:
      One value an anchor; the reference takes the mean over all anchors.

    Raises:
      ValueError: for labels and mask at once, a number out of its range, or rows that are no
        multiple of the views.

    Differs from the reference: rows are image-major, so a batch that is split over devices stays
    so. The largest similarity that is subtracted leaves out that of an anchor with itself, so that
    nothing underflows to nan for any temperature or norm. A batch of one image with one view costs
    0 in place of nan. A column `[n, 1]` of labels holds one class, not class numbers.
    """
    _check(len(projections), labels, mask, views, anchor_views)
    _check_positive(temperature=temperature, base_temperature=base_temperature)
    rows = jnp.arange(len(projections))
    first_views = np.flatnonzero(np.arange(len(rows)) % views < (anchor_views or views))
    anchors = None if anchor_views is None else jnp.asarray(first_views)

    def positives(chosen: Int[Array, " r"]) -> Float[Array, "r n"]:
        if mask is not None:
            weights = mask[chosen]
        else:
            weights = (rows // views)[chosen][:, None] == (rows // views)[None]
            if labels is not None:
                weights |= _share_label(labels, chosen)
        return weights.astype(jnp.float32)

    found = contrast(
        projections.reshape(len(projections), -1),
        positives,
        anchors=anchors,
        compared=valid,
        temperature=temperature,
        mean_inside_log=mean_inside_log,
        chunk_size=chunk_size,
    )
    return found * (temperature / base_temperature)


def label_contrastive_loss(
    projections: Float[Array, "b k d"],
    labels: Float[Array, "b k"],
    logits: Float[Array, "b k"] | None = None,
    valid: Bool[Array, " b"] | None = None,
    *,
    temperature: float = 0.07,
    base_temperature: float = 0.07,
    denominator_size: int = 0,
    max_pairs: int | None = None,
    chunk_size: int = 256,
) -> Float[Array, "b k"]:
    """Draws the embeddings of one present label in different images or views together.

    Anchors are the P pairs (image, label) whose label is present, and the positives of an anchor
    are the other anchors of its label. With s(i, j) = z_i . z_j / temperature an anchor costs

        temperature / base_temperature * mean over its positives p of -ln(exp s(i, p) / sum over
        all other anchors j of exp s(i, j)) / P,

    and 0 without positives, so that the sum, as `reduction="sum"` takes it, is the mean over the
    anchors, of all images at once. No label in the batch gives 0.

    Dao et al., https://arxiv.org/abs/2107.11626; SonDaoDuy/MulCon models/networks.py (`SupConLoss`
    with `len_pos`) and coco_att_con_stage_two_model.py, whose second stage has both temperatures at
    0.2, weighs the loss by 0.5, and gives two views of each image to the batch.

    Args:
      projections: of every label, of length 1.
      labels: 1 present; all others are absent.
      logits: of every label, read where `denominator_size` is above 0.
      valid: images that are not valid have no anchors and fill no denominator.
      temperature: divides the similarities, above 0.
      base_temperature: above 0.
      denominator_size: D: where P is smaller, the D - P absent pairs of the largest logits join the
        denominators, as the published option of that name; at most all of them.
      max_pairs: rows of the matrix of similarities: it must hold all anchors and the absent pairs
        that join, else the loss is nan. None takes b * k; fewer save time and memory.
      chunk_size: anchors at a time, whose similarities are held in memory: for 8 views of 1024
        images with 10 active labels each, and the gradient, a CPU takes 623 MiB where a matrix of
        all pairs has 25 GiB.

    Returns:
      The cost of each pair divided by P; 0 for absent labels.

    Raises:
      ValueError: for a number out of its range, or a `denominator_size` without logits.

    Differs from the reference, which raises without any present label, with a single one, and with
    fewer absent pairs than `denominator_size` asks for. The largest similarity that is subtracted
    leaves out that of an anchor with itself, which makes nan there for long embeddings.
    """
    _check_positive(temperature=temperature, base_temperature=base_temperature)
    if denominator_size and logits is None:
        raise ValueError("denominator_size needs logits, which choose the absent pairs")
    if max_pairs is not None and max_pairs < 1:
        raise ValueError(f"max_pairs must be at least 1, got {max_pairs}")
    classes = labels.shape[1]
    there = jnp.ones(len(labels), bool) if valid is None else valid
    present = ((labels > 0) & there[:, None]).reshape(-1)
    total = present.sum()
    compared = present
    if denominator_size and logits is not None:
        absent = ~present & jnp.repeat(there, classes)
        order = jnp.argsort(jnp.where(absent, -logits.reshape(-1), jnp.inf))
        rank = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)))
        compared = present | (absent & (rank < denominator_size - total))
    size = len(present) if max_pairs is None else min(max_pairs, len(present))
    rows = jnp.nonzero(compared, size=size, fill_value=len(present))[0]
    kept = rows < len(present)
    anchors = kept & jnp.take(present, rows, mode="clip")
    embeddings = jnp.take(projections.reshape(len(present), -1), rows, axis=0, mode="clip")

    def positives(chosen: Int[Array, " r"]) -> Float[Array, "r n"]:
        same = rows[chosen][:, None] % classes == rows[None] % classes
        return (same & anchors[chosen][:, None] & anchors[None]).astype(jnp.float32)

    found = contrast(
        embeddings,
        positives,
        compared=kept,
        temperature=temperature,
        chunk_size=chunk_size,
    )
    factor = temperature / base_temperature / jnp.maximum(total, 1)
    found = jnp.where(compared.sum() > size, jnp.nan, found * factor.astype(found.dtype))
    costs = jnp.zeros(len(present), found.dtype).at[rows].add(found, mode="drop")
    return costs.reshape(labels.shape)


def contrast(
    embeddings: Float[Array, "n d"],
    positives: Callable[[Int[Array, " r"]], Float[Array, "r n"]],
    *,
    anchors: Int[Array, " a"] | None = None,
    compared: Bool[Array, " n"] | None = None,
    temperature: float,
    mean_inside_log: bool = False,
    chunk_size: int = 256,
) -> Float[Array, " a"]:
    """Returns the cost of each anchor: mean over its positives of -ln of their share.

    The share of a positive is exp(its similarity) over the sum of all rows compared with but the
    anchor. What is in memory is `[chunk_size, n]`, never `[n, n]`.

    Args:
      embeddings: one row each; computed in float32 at least.
      positives: numbers of some anchors to the weights of all rows, at least 0. That of the anchor
        itself, and those of rows not compared with, do not count.
      anchors: numbers of the rows that are anchors; None for all.
      compared: rows that are anchors and compared with; None for all. Others cost 0.
      temperature: divides the similarities.
      mean_inside_log: -ln of the mean of the shares.
      chunk_size: anchors at a time.

    Raises:
      ValueError: for a chunk_size below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    embeddings = embeddings.astype(jnp.promote_types(embeddings.dtype, jnp.float32))
    rows = jnp.arange(len(embeddings))
    anchors = rows if anchors is None else anchors

    # Recomputed for the gradient: nothing of the size of a block waits for it.
    @jax.checkpoint
    def costs(embeddings: Float[Array, "n d"], chosen: Int[Array, " r"]) -> Float[Array, " r"]:
        # Some devices multiply float32 in fewer bits otherwise.
        scores = jnp.matmul(embeddings[chosen] / temperature, embeddings.T, precision="highest")
        others = chosen[:, None] != rows[None]
        if compared is not None:
            others &= compared[None] & compared[chosen][:, None]
        weights = jnp.where(others, positives(chosen), 0).astype(scores.dtype)
        total = weights.sum(1)
        # An anchor that nothing is compared with has no positives; its logarithm must be finite.
        kept = others | ~others.any(1, keepdims=True)
        log_sum = jax.nn.logsumexp(scores, axis=1, where=kept)
        if not mean_inside_log:
            gaps = jnp.where(weights > 0, log_sum[:, None] - scores, 0)
            return (weights * gaps).sum(1) / jnp.where(total < _NO_POSITIVES, 1, total)
        has_positives = total >= _NO_POSITIVES
        kept = (weights > 0) | ~has_positives[:, None]
        factors = jnp.where(kept & has_positives[:, None], weights, 1)
        log_mean = jax.nn.logsumexp(scores, axis=1, b=factors, where=kept)
        log_mean -= jnp.log(jnp.where(has_positives, total, 1))
        return jnp.where(has_positives, log_sum - log_mean, 0)

    if chunk_size >= len(anchors):
        return costs(embeddings, anchors)
    padded = jnp.pad(anchors, (0, -len(anchors) % chunk_size)).reshape(-1, chunk_size)
    found = jax.lax.map(lambda chosen: costs(embeddings, chosen), padded)
    return found.reshape(-1)[: len(anchors)]


def _share_label(labels: Shaped[Array, "n *k"], chosen: Int[Array, " r"]) -> Bool[Array, "r n"]:
    if labels.ndim == 1:
        return labels[chosen][:, None] == labels[None]
    # 32 classes a word: less memory than a product of matrices, whose result would wait.
    bits = jnp.pad(labels > 0, ((0, 0), (0, -labels.shape[1] % 32))).reshape(len(labels), -1, 32)
    words = (bits.astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)[None, None]).sum(2).T
    common = [word[chosen][:, None] & word[None] for word in words]
    return functools.reduce(jnp.bitwise_or, common) > 0


def _check(
    count: int, labels: Array | None, mask: Array | None, views: int, anchor_views: int | None
) -> None:
    if labels is not None and mask is not None:
        raise ValueError("labels and mask both say which rows are positives; give one of them")
    if views < 1 or count % views:
        raise ValueError(f"views: got {views} views of each image in {count} rows")
    if anchor_views is not None and not 1 <= anchor_views <= views:
        raise ValueError(f"anchor_views must be from 1 to the {views} views, got {anchor_views}")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
