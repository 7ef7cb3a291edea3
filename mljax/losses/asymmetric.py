"""Asymmetric loss: focusing and clipping that treat present and absent classes differently.

Ridnik et al., "Asymmetric Loss For Multi-Label Classification", https://arxiv.org/abs/2009.14119.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def focusing_weight(
    base: Float[Array, "b k"], exponent: Float[Array, "b k"]
) -> Float[Array, "b k"]:
    """Returns `base ** exponent` with a finite gradient for `base`, also where the base is 0.

    0 ** 0 is 1 with gradient 0, as in torch. A power between 0 and 1 has an infinite slope at 0,
    where this gives 0.

    Args:
      base: in [0, 1]; rounding errors below 0 count as 0.
      exponent: at least 0.
    """
    base = jnp.where(base < 0, 0.0, base)
    steep = (base == 0) & (exponent < 1)
    power = jnp.where(steep, 1.0, base) ** exponent
    return jnp.where(steep & (exponent > 0), 0.0, power)


def smooth_labels(labels: Float[Array, "b k"], smoothing: float) -> Float[Array, "b k"]:
    """Returns labels of which 1 is `1 - smoothing` and 0 is `smoothing`, not spread over classes.

    Source: tosfaq/deep-object-reid (branch multilabel-paper) torchreid/losses/asl.py.

    Args:
      labels: 1 present, 0 absent, -1 unannotated: stays below 0.
      smoothing: in [0, 1).
    """
    if not smoothing:
        return labels
    return jnp.where(labels == 0, smoothing, labels * (1 - smoothing))


def asymmetric_loss(
    logits: Float[Array, "b k"],
    labels: Float[Array, "b k"],
    *,
    gamma_neg: float = 4.0,
    gamma_pos: float = 1.0,
    clip: float | None = 0.05,
    eps: float = 1e-8,
    differentiable_focus: bool = False,
    smoothing: float = 0.0,
) -> Float[Array, "b k"]:
    """Returns the asymmetric loss (ASL) of every class of every image, at least 0.

    With p = sigmoid(logit) and q = min(1 - p + clip, 1), a present class costs
    -(1 - p)^gamma_pos log(p) and an absent one -(1 - q)^gamma_neg log(q). Both gammas and the clip
    at 0 give binary cross-entropy; equal gammas without a clip and with `differentiable_focus`
    give focal loss.

    Ridnik et al. 2021, section 2 (asymmetric focusing and probability shifting; its p_m is 1 - q),
    https://arxiv.org/abs/2009.14119; Alibaba-MIIL/ASL losses.py, `AsymmetricLoss` and
    `AsymmetricLossOptimized`, whose scalar is the sum over batch and classes. The published recipes
    use gamma_neg 4, gamma_pos 0, clip 0.05.

    Parity: no logarithm goes below log(eps), and its gradient is 0 from there on: for a present
    class at logits below -18. 1 - p is rounded as in the original, so for an absent class without
    a clip it happens in float32 at logits above 17.

    Differs from the reference:
      - An unannotated class (label -1) costs 0 and has gradient 0; the original has no such label.
      - With `differentiable_focus` and a gamma between 0 and 1 the original's gradient is nan
        where the focusing weight is 0; here it is 0.

    Args:
      logits: before the sigmoid; below float32 they are computed in float32.
      labels: 1 present, 0 absent, -1 unannotated; between 0 and 1 a soft label, which mixes both
        costs and interpolates the exponent.
      gamma_neg: focusing exponent of absent classes, at least 0.
      gamma_pos: focusing exponent of present classes, at least 0.
      clip: probability shift of absent classes, in [0, 1); None or 0 is none.
      eps: the least probability inside a logarithm.
      differentiable_focus: let the gradient flow through the focusing weight, as
        `disable_torch_grad_focal_loss=False` does (the default of `AsymmetricLossOptimized`).
      smoothing: present labels become 1 minus this, absent ones this, in [0, 1).
    """
    logits = _widen(logits)
    annotated = labels >= 0
    present = jnp.where(annotated, smooth_labels(labels, smoothing), 0).astype(logits.dtype)
    absent = 1 - present
    p = jax.nn.sigmoid(logits)
    q = 1 - p
    if clip:
        # Selecting, unlike a minimum, passes the whole gradient at equality, as torch's clamp does.
        q = jnp.where(q + clip > 1, 1.0, q + clip)
    log_likelihood = present * _log(p, eps) + absent * _log(q, eps)
    weight = focusing_weight(
        1 - (p * present + q * absent), gamma_pos * present + gamma_neg * absent
    )
    if not differentiable_focus:
        weight = lax.stop_gradient(weight)
    return jnp.where(annotated, -weight * log_likelihood, 0.0)


def single_label_asymmetric_loss(
    logits: Float[Array, "b k"],
    labels: Float[Array, "b k"],
    *,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    smoothing: float = 0.1,
) -> Float[Array, " b"]:
    """Returns the asymmetric loss of every image when exactly one class is present, at least 0.

    With log p = log_softmax(logits), each log p_k is weighted by (1 - p_k)^gamma_pos for the
    present class and p_k^gamma_neg for the others, then summed against the smoothed labels. The
    gradient flows through the weights. Both gammas at 0 give cross-entropy.

    Alibaba-MIIL/ASL losses.py, `ASLSingleLabel`, whose `mean` is the mean over the batch and whose
    `eps` is `smoothing` here. The paper, https://arxiv.org/abs/2009.14119, has no such form.

    Differs from the reference: an image without a present class, such as an unannotated one, costs
    0 and has gradient 0; the original takes class indices, so it has no such image.

    Args:
      logits: before the softmax; below float32 they are computed in float32.
      labels: one-hot rows; -1 counts as absent.
      gamma_pos: focusing exponent of the present class, at least 0.
      gamma_neg: focusing exponent of the other classes, at least 0.
      smoothing: share of the label that is spread evenly over all k classes, in [0, 1).
    """
    logits = _widen(logits)
    present = jnp.where(labels > 0, labels, 0).astype(logits.dtype)
    absent = 1 - present
    log_p = jax.nn.log_softmax(logits, axis=-1)
    p = jnp.exp(log_p)
    weight = focusing_weight(
        1 - p * present - (1 - p) * absent, gamma_pos * present + gamma_neg * absent
    )
    smoothed = present * (1 - smoothing) + smoothing / logits.shape[-1]
    loss = -jnp.sum(smoothed * weight * log_p, axis=-1)
    return jnp.where(jnp.any(present > 0, axis=-1), loss, 0.0)


def _widen(logits: Float[Array, "b k"]) -> Float[Array, "b k"]:
    return logits.astype(jnp.float64 if logits.dtype == jnp.float64 else jnp.float32)


def _log(probability: Float[Array, "b k"], eps: float) -> Float[Array, "b k"]:
    return jnp.log(jnp.where(probability < eps, eps, probability))
