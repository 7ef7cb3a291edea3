"""KMCL's kernel losses: reconstruction and kernel contrast.

"End-to-End Supervised Multilabel Contrastive Learning" (KMCL, https://arxiv.org/abs/2307.03967),
file src/loss_functions/losses.py of mahdihosseini/KMCL. The head `kernel_mixture` describes each
image by one Gaussian kernel per class; KMCL's training loss is `asymmetric_loss` (summed) plus the
batch means of the two losses here, with equal weights.

Shapes: means `[b, d|1, k]` and variances `[b, d|1, k|1]` broadcast against features `[b, d]`. An
axis of length 1 shares one value: over dimensions when the covariance is isotropic, over classes
for the Mahalanobis and RBF similarities.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

# The original adds the square root of float64's machine epsilon to each standard deviation; it
# vanishes in float32.
_STD_OFFSET = math.sqrt(2.220446e-16)
# Inside the logarithm of each contrast.
_LOG_OFFSET = 1e-7

# Range of the inputs of the pairwise distance, chosen so that float32 cannot overflow: with both
# variances in [2^-32, 2^32], a dimension's ratio (v + v')/(2 s s') is at most (2^32 + 1)/2, and
# the product of _GROUP = 4 of them is below 2^125. Means in [-2^30, 2^30] keep the squares of
# mean difference / (v + v') below 2^125 as well.
_LOG2_VARIANCE = 32
_LOG2_MEAN = 30
_GROUP = 4


def reconstruction_loss(
    logits: Float[Array, "b k"],
    labels: Float[Array, "b k"],
    features: Float[Array, "b d"],
    means: Float[Array, "b #d k"],
    variances: Float[Array, "b #d #k"],
    *,
    kernel_floor: float = 1.17549e-38,
    eps: float = 1e-7,
) -> Float[Array, "b"]:
    """Negative log share of the present classes in each image's mixture of kernels.

    With p = sigmoid(logits) and the unnormalized kernel g = exp(-|(f - mean) / std|^2 / 2), the
    loss is -ln(sum over present classes of p g / sum over annotated classes of p g).
    KMCL adds the batch mean of this term, which its code calls NLL.

    Args:
      logits: of each class, before the sigmoid.
      labels: 1 present, 0 absent, -1 unannotated: left out of both sums.
      features: the vector that entered the head.
      means: of the kernels.
      variances: of the kernels, positive.
      kernel_floor: kernels are at least this. The code's value cuts the gradient of distant
        kernels to exactly zero: of all kernels, at the start of isotropic training. 0 lifts the
        floor; with an eps like 1e-300 beside it, the gradient always reaches features, means
        and variances.
      eps: the share is at least this, positive. So a row that is annotated but has no present
        class costs -ln(eps), without gradient. A row without any annotation costs 0.

    Returns:
      One value an image.

    Differs from the reference: computed in log space, in float32 at least, so it stays finite
    where the code divides 0 by 0 (distant kernels with very negative logits). Features and means
    count as at most 2^30 in magnitude. The isotropic distance never forms a `[b, d, k]` array.
    """
    dtype = jnp.promote_types(jnp.result_type(logits, features, means, variances), jnp.float32)
    logits, features, means, variances = (
        x.astype(dtype) for x in (logits, features, means, variances)
    )
    log_floor = math.log(kernel_floor) if kernel_floor > 0 else -math.inf
    log_kernels = jnp.maximum(-0.5 * _scaled_distances(features, means, variances), log_floor)

    annotated, present = labels >= 0, labels > 0
    # The share does not depend on the largest kernel; the digits of -87 would cost it precision.
    log_kernels -= _peak(log_kernels, annotated)
    log_weights = jax.nn.log_sigmoid(logits) + log_kernels
    log_share = _log_sum(log_weights, present) - _log_sum(log_weights, annotated)
    most = -math.log(eps)
    without_present = jnp.where(jnp.any(annotated, axis=1), most, 0)
    return jnp.where(jnp.any(present, axis=1), jnp.minimum(-log_share, most), without_present)


def kernel_contrastive_loss(
    features: Float[Array, "b d"],
    labels: Float[Array, "b k"],
    means: Float[Array, "b #d k"],
    variances: Float[Array, "b #d #k"],
    valid: Bool[Array, "b"] | None = None,
    *,
    temperature: float = 0.17,
    width_factor: bool = True,
    determinant: bool = True,
    jaccard_outside_log: bool = False,
    chunk_size: int = 16,
) -> Float[Array, "b"]:
    """Pulls together the kernels of the classes that two images share.

    For images n and m and a class k, D is the Bhattacharyya distance of their kernels and
    E = exp(exp(-D) / temperature). With J the Jaccard index of the two label sets and A(n) the
    other images that share a label with n, the anchor n costs

        -1/|A(n)| * sum over m in A(n), k in both of ln(J E_nmk / sum over m' != n of E_nm'k + 1e-7)

    and 0 when A(n) is empty. KMCL adds the batch mean of this term (BD in its code).

    Args:
      features: the vector that entered the head; only its width M is read.
      labels: 1 present, 0 absent, -1 unannotated: no image is matched by such a class, but like
        every other image it stays in the denominators.
      means: of the kernels.
      variances: of the kernels, positive.
      valid: rows that are neither anchors nor contrasts where False; such rows cost 0.
      temperature: of the similarities; the original fixes 0.17.
      width_factor: keep the code's extra factor M (128) in the exponent of anisotropic kernels,
        under which exp(-D) is 0 for almost all pairs and the term nearly constant. False gives
        the Bhattacharyya coefficient of the two Gaussians. Isotropic kernels are not affected.
      determinant: False drops the log-determinant term, as the Mahalanobis and RBF kernels of
        textbooks have none; the code keeps it for every similarity.
      jaccard_outside_log: True weights each logarithm by J. In the code J is inside, where it
        only adds the constant ln J: the value changes, the gradient (nearly) does not.
      chunk_size: dimensions, or contrasts in the gradient, per step of the computation; changes
        speed and memory only. XLA's CPU backend is fastest with 16 to 32, by up to ten times.

    Returns:
      One value an anchor.

    Differs from the reference: vectorized over anchors, over the global batch instead of one
    device's (under `micro_batches` over one of them: images of different ones are not
    contrasted), finite for a batch of one, all six pairs of covariance and similarity. Memory is
    a few arrays of `[b, b, k]`. Variances count as at most 2^32 and at least 2^-32, means as at
    most 2^30 in magnitude. Reverse-mode derivatives only.
    """
    dtype = jnp.promote_types(jnp.result_type(means, variances), jnp.float32)
    count = labels.shape[0]
    width = features.shape[1]
    present = labels > 0
    real = jnp.ones(count, bool) if valid is None else valid
    others = ~jnp.eye(count, dtype=bool) & real[None, :] & real[:, None]
    jaccard = _jaccard(present.astype(dtype))
    matched = others & (jaccard > 0)

    distances = _distances(
        means.astype(dtype),
        variances.astype(dtype),
        scale=width if width_factor else 1,
        isotropic_scale=width,
        determinant=determinant,
        chunk_size=chunk_size,
    )
    scores = jnp.exp(-distances) / temperature
    pairs = matched[:, :, None] & present[:, None, :] & present[None, :, :]
    log_shares = _log_shares(scores, others[:, :, None], pairs)
    jaccard = jaccard[:, :, None]
    if jaccard_outside_log:
        terms = jaccard * jnp.log(jnp.exp(log_shares) + _LOG_OFFSET)
    else:
        terms = jnp.log(jnp.where(pairs, jaccard, 1) * jnp.exp(log_shares) + _LOG_OFFSET)
    matches = jnp.maximum(jnp.sum(matched, axis=1), 1)
    return -jnp.sum(terms, axis=(1, 2), where=pairs) / matches


def _peak(x: Float[Array, "b k"], kept: Bool[Array, "b k"]) -> Float[Array, "b 1"]:
    """Returns the largest kept entry of each row without gradient; 0 where none is kept."""
    peak = jnp.max(x, axis=1, keepdims=True, where=kept, initial=-jnp.inf)
    return lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0))


def _log_sum(x: Float[Array, "b k"], kept: Bool[Array, "b k"]) -> Float[Array, "b"]:
    """Returns ln of the sum of exp(x) over the kept entries; finite where none is kept."""
    peak = _peak(x, kept)
    total = jnp.sum(jnp.exp(jnp.where(kept, x - peak, -jnp.inf)), axis=1)
    return peak[:, 0] + jnp.log(jnp.where(total > 0, total, 1))


def _clip_to_range(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns means, or the features that they are compared with, where distances are finite."""
    return jnp.clip(x, -(2.0**_LOG2_MEAN), 2.0**_LOG2_MEAN)


def _scaled_distances(
    features: Float[Array, "b d"],
    means: Float[Array, "b #d k"],
    variances: Float[Array, "b #d #k"],
) -> Float[Array, "b k"]:
    """Returns |(f - mean) / std|^2 for each image and class."""
    std = jnp.sqrt(variances) + _STD_OFFSET
    # An infinite square has a finite loss, by the kernels' floor, but no finite gradient.
    features, means = (_clip_to_range(x) for x in (features, means))
    width = features.shape[1]
    if means.shape[1] == variances.shape[1] == 1:
        # In two passes: expanding the square would cancel where the mean is far from the features.
        center = jnp.mean(features, axis=1, keepdims=True)
        spread = jnp.sum((features - center) ** 2, axis=1, keepdims=True)
        return (spread + width * (center - means[:, 0]) ** 2) / std[:, 0] ** 2
    return jnp.sum(((features[:, :, None] - means) / std) ** 2, axis=1)


def _jaccard(present: Float[Array, "b k"]) -> Float[Array, "b b"]:
    """Returns the Jaccard index of every two label sets; 0 where both are empty."""
    shared = jnp.matmul(present, present.T, precision=lax.Precision.HIGHEST)
    sizes = jnp.sum(present, axis=1)
    union = sizes[:, None] + sizes[None, :] - shared
    return shared / jnp.maximum(union, 1)


def _log_shares(
    scores: Float[Array, "b b k"], others: Bool[Array, "b b 1"], pairs: Bool[Array, "b b k"]
) -> Float[Array, "b b k"]:
    """Returns ln of exp(score) over its sum over the row's others, for `pairs`; 0 elsewhere."""
    peak = lax.stop_gradient(jnp.max(scores, axis=1, keepdims=True, where=others, initial=0))
    weights = jnp.exp(jnp.where(others, scores - peak, -jnp.inf))
    total = jnp.sum(weights, axis=1, keepdims=True)
    total = jnp.where(total > 0, total, 1)
    return jnp.where(pairs, scores - peak - jnp.log(total), 0)


def _distances(
    means: Float[Array, "b #d k"],
    variances: Float[Array, "b #d #k"],
    *,
    scale: int,
    isotropic_scale: int,
    determinant: bool,
    chunk_size: int,
) -> Float[Array, "b b k"]:
    """Returns the Bhattacharyya distance of every two images' kernels, class by class."""
    variances = (jnp.sqrt(variances) + _STD_OFFSET) ** 2
    variances = jnp.clip(variances, 2.0**-_LOG2_VARIANCE, 2.0**_LOG2_VARIANCE)
    means = _clip_to_range(means)
    if variances.shape[1] == means.shape[1] == 1:
        scale = isotropic_scale
    if variances.shape[1] <= means.shape[1]:
        own = jnp.broadcast_to(variances, means.shape)
        return scale * _pairwise_distances(means, own, determinant, chunk_size)
    # One mean for all dimensions: nothing but the variances needs a sum over them.
    log_ratios, precisions = _variance_sums(variances, determinant, chunk_size)
    gaps = means[:, None, 0, :] - means[None, :, 0, :]
    return scale * (log_ratios + 0.25 * gaps**2 * precisions)


def _variance_sums(
    variances: Float[Array, "b d k"], determinant: bool, chunk_size: int
) -> tuple[Float[Array, "b b k"], Float[Array, "b b k"]]:
    """Returns the sums over dimensions of ln((v + v')/(2 s s'))/2 and of 1/(v + v')."""
    size = min(chunk_size, variances.shape[1])
    b, _, k = variances.shape
    zero = jnp.zeros((b, b, k), variances.dtype)

    @jax.checkpoint
    def add_chunk(
        sums: tuple[Array, Array], chunk: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        log_ratios, precisions = sums
        values, counted = chunk
        for i in range(size):
            v = values[:, i]
            total = v[:, None] + v[None, :]
            precisions += counted[:, i, None] / total
            if determinant:
                difference = v[:, None] - v[None, :]
                ratio = difference / v[:, None] * (difference / v[None, :])
                log_ratios += 0.25 * jnp.log1p(0.25 * ratio)
        return (log_ratios, precisions), None

    counted = jnp.ones((1, variances.shape[1], 1), variances.dtype)
    chunks = _chunks(variances, size, 1.0), _chunks(counted, size, 0.0)
    return lax.scan(add_chunk, (zero, zero), chunks)[0]


def _sum_distances(
    means: Float[Array, "b d k"],
    variances: Float[Array, "b d k"],
    determinant: bool,
    chunk_size: int,
) -> Float[Array, "b b k"]:
    """Returns the sum over dimensions of ln((v + v')/(2 s s'))/2 + (m - m')^2/(v + v')/4.

    Scans over chunks of dimensions. The ratio in the logarithm is 1 + (s - s')^2/(2 s s'), and
    the product of _GROUP ratios costs one logarithm; it is kept minus one, which is exact for
    nearly equal variances.
    """
    std = jnp.sqrt(variances)

    def add_chunk(total: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, None]:
        # Without the barrier XLA's CPU backend slices inside its innermost loop: 8 times slower.
        means, std, inverse = lax.optimization_barrier(chunk)
        log_ratios = quadratic = growth = jnp.zeros((), total.dtype)
        for i in range(size):
            halves = inverse[:, None, i] * inverse[None, :, i]
            excess = (std[:, None, i] - std[None, :, i]) ** 2 * halves
            gaps = means[:, None, i] - means[None, :, i]
            quadratic = quadratic + gaps**2 * halves / (1 + excess)
            growth = growth + excess + growth * excess
            if (i + 1) % _GROUP == 0 or i + 1 == size:
                log_ratios = log_ratios + jnp.log1p(growth)
                growth = jnp.zeros((), total.dtype)
        if determinant:
            quadratic = quadratic + 2 * log_ratios
        return total + 0.25 * quadratic, None

    size = min(chunk_size, means.shape[1])
    inverse = 1 / (math.sqrt(2) * std)
    chunks = _chunks(means, size, 0.0), _chunks(std, size, 1.0), _chunks(inverse, size, 1.0)
    zero = jnp.zeros_like(means, shape=(len(means), len(means), means.shape[2]))
    return lax.scan(add_chunk, zero, chunks)[0]


def _pairwise_forward(
    means: Array, variances: Array, determinant: bool, chunk_size: int
) -> tuple[Array, tuple[Array, Array]]:
    return _sum_distances(means, variances, determinant, chunk_size), (means, variances)


def _pairwise_backward(
    determinant: bool, chunk_size: int, residuals: tuple[Array, Array], cotangents: Array
) -> tuple[Array, Array]:
    """Returns the gradients in closed form, summed over chunks of the second image.

    The distance is symmetric, so both roles of an image are one sum with the symmetrized
    cotangents. Each gradient has a loop of its own: in a common one, XLA's CPU backend stores
    every quotient.
    """
    means, variances = residuals
    weights = jnp.swapaxes(cotangents, 0, 1) + cotangents
    inverse = 1 / variances
    size = min(chunk_size, means.shape[0])
    chunks = (
        _chunks(weights, size, 0.0),
        _chunks(jnp.swapaxes(means, 0, 1), size, 0.0),
        _chunks(jnp.swapaxes(variances, 0, 1), size, 1.0),
    )

    def add_to_means(total: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, None]:
        weight, mean, variance = lax.optimization_barrier(chunk)
        for i in range(size):
            gaps, sums = means - mean[None, :, i], variances + variance[None, :, i]
            total = total + weight[:, None, i] * (gaps / sums)
        return total, None

    def add_to_variances(total: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, None]:
        weight, mean, variance = lax.optimization_barrier(chunk)
        for i in range(size):
            precision = 1 / (variances + variance[None, :, i])
            slope = -(((means - mean[None, :, i]) * precision) ** 2)
            if determinant:
                slope = slope + (variances - variance[None, :, i]) * precision * inverse
            total = total + weight[:, None, i] * slope
        return total, None

    zero = jnp.zeros_like(means)
    to_means = 0.5 * lax.scan(add_to_means, zero, chunks)[0]
    to_variances = 0.25 * lax.scan(add_to_variances, zero, chunks)[0]
    return to_means, to_variances


_pairwise_distances = jax.custom_vjp(_sum_distances, nondiff_argnums=(2, 3))
_pairwise_distances.defvjp(_pairwise_forward, _pairwise_backward)


def _chunks(x: Float[Array, "n s k"], size: int, fill: float) -> Float[Array, "c n {size} k"]:
    """Returns `x` with its second axis, padded with `fill`, split into chunks.

    What one step of a loop reads of an image lies together: a stride of a power of two between
    the dimensions of a chunk would put them all into the same cache sets.
    """
    padded = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0)), constant_values=fill)
    return jnp.moveaxis(padded.reshape(x.shape[0], -1, size, x.shape[2]), 1, 0)
