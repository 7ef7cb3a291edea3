"""The TResNet table, for the original names and for timm's.

Original: Alibaba-MIIL/TResNet, ASL, PartialLabelingCSL, ImageNet21K and ML_Decoder share one set
of names and hold the raw weight of in-place activated batch norm, whose gain is |weight| + 1e-5.
timm (huggingface/pytorch-image-models `tresnet.py`) renames the layers and holds the gains.
"""

from typing import Literal

import numpy as np

from converters.table import Arrays, Row, Table, Transform, conv, copy, join, linear, pointwise, row
from mljax.backbones.tresnet import TResNet
from mljax.heads.linear import Linear

# Whose names a state dict has; `supcon` (HobbitLong/SupContrast) is for ResNets alone.
Naming = Literal["original", "timm", "supcon"]

_EPS = np.float32(1e-5)
_COUNTER = "a counter of batches, which nothing reads"
_BLUR = "the constant filter of the blur-pool"


def tresnet_table(
    backbone: TResNet, naming: Naming, *, source: str = "", target: str = "backbone"
) -> Table:
    """Returns the table of a TResNet without its head.

    Args:
      backbone: tells which blocks, shortcuts and attentions there are; it may be abstract.
      naming: of the source.
      source: what precedes the names in the state dict, such as `encoder.`.
      target: path of the backbone in the network.

    Raises:
      ValueError: for the names of SupContrast, which has no TResNet.
    """
    if naming == "supcon":
        raise ValueError("TResNets have original or timm names, got naming='supcon'")
    tables = [_unit(f"{source}body.conv1", f"{target}.stem", naming)]
    for stage, blocks in enumerate(backbone.stages):
        for index, block in enumerate(blocks):
            old = f"{source}body.layer{stage + 1}.{index}"
            new = f"{target}.stages.{stage}.{index}"
            has_conv3 = hasattr(block, "conv3")
            strided = "conv2" if has_conv3 else "conv1"
            for name in ("conv1", "conv2", "conv3")[: 3 if has_conv3 else 2]:
                blurred = block.stride == 2 and name == strided
                tables.append(_unit(f"{old}.{name}", f"{new}.{name}", naming, blurred=blurred))
            if block.shortcut is not None:
                # Index 0 is the average pool where there is one.
                position = 1 if block.stride == 2 else 0
                tables.append(_unit(f"{old}.downsample.{position}", f"{new}.shortcut", naming))
            if block.squeeze_excite is not None:
                tables.append(_squeeze_excite(f"{old}.se", f"{new}.squeeze_excite"))
    return join(*tables)


def linear_head_table(
    head: Linear, naming: Naming, *, source: str = "head.fc", target: str = "head"
) -> Table:
    """Returns the table of the linear head, with or without the embedding before the classifier."""
    del naming  # Both have the same names.
    if head.embedding is None:
        return _affine(source, f"{target}.linear")
    return join(
        _affine(f"{source}.embedding_generator.0", f"{target}.embedding"),
        _affine(f"{source}.FC", f"{target}.linear"),
    )


def _affine(source: str, target: str) -> Table:
    return Table(
        (
            row(f"{source}.weight", f"{target}.kernel", linear),
            row(f"{source}.bias", f"{target}.bias", copy),
        )
    )


def _squeeze_excite(source: str, target: str) -> Table:
    return Table(
        tuple(
            row(f"{source}.{old}.{kind}", f"{target}.{new}.{renamed}", transform)
            for old, new in (("fc1", "reduce"), ("fc2", "expand"))
            for kind, renamed, transform in (
                ("weight", "kernel", pointwise),
                ("bias", "bias", copy),
            )
        )
    )


def _unit(source: str, target: str, naming: Naming, *, blurred: bool = False) -> Table:
    """Returns the table of a convolution and its activated batch norm."""
    kernel, scale, bias, mean, var = (
        f"{target}.{name}"
        for name in ("conv.kernel", "norm.scale", "norm.bias", "norm.mean", "norm.var")
    )
    if naming == "timm":
        norm = f"{source}.bn"
        sources = (f"{source}.conv.weight", f"{norm}.weight", f"{norm}.running_mean")
        rows = [
            Row(sources, (kernel, scale, mean), timm_unit),
            row(f"{norm}.bias", bias, copy),
            row(f"{norm}.running_var", var, copy),
        ]
    else:
        # The blur-pool behind a unit puts it one level deeper.
        inner = f"{source}.0" if blurred else source
        norm = f"{inner}.1"
        rows = [
            row(f"{inner}.0.weight", kernel, conv),
            row(f"{norm}.weight", scale, copy),
            row(f"{norm}.bias", bias, copy),
            row(f"{norm}.running_mean", mean, copy),
            row(f"{norm}.running_var", var, copy),
        ]
    unused = {f"{norm}.num_batches_tracked": _COUNTER}
    if blurred and naming == "original":
        unused[f"{source}.1.op.filt"] = _BLUR
    return Table(tuple(rows), unused)


def _timm_to_jax(weight: np.ndarray, gain: np.ndarray, mean: np.ndarray) -> Arrays:
    # timm trains the gain itself, so home-grown files may hold negative ones. |scale| + eps cannot
    # be negative, but the sign can move into the convolution and its running mean, exactly.
    sign = np.where(gain < 0, -1, 1).astype(weight.dtype)
    kernel = (weight * sign[:, None, None, None]).transpose(2, 3, 1, 0)
    return kernel, _raw_scale(np.abs(gain)), mean * sign


def _timm_to_torch(kernel: np.ndarray, scale: np.ndarray, mean: np.ndarray) -> Arrays:
    return kernel.transpose(3, 2, 0, 1), np.abs(scale) + _EPS, mean


def _raw_scale(gain: np.ndarray) -> np.ndarray:
    """Returns the float32 scale for which |scale| + 1e-5 is the float32 `gain`.

    That is exact for every gain that is such a sum, as all of timm's published ones; any other
    (trained in timm) is met to one rounding. Gains below 1e-5 become 1e-5, the smallest gain of an
    activated batch norm.
    """
    gain = np.maximum(gain.astype(np.float32), _EPS)
    scale = gain - _EPS
    # The difference was rounded once: where adding back rounds elsewhere, a neighbor is right.
    for direction in (np.float32(np.inf), np.float32(-np.inf)):
        neighbor = np.nextafter(gain - _EPS, direction)
        better = np.abs(neighbor + _EPS - gain) < np.abs(scale + _EPS - gain)
        scale = np.where(better, neighbor, scale)
    return scale


timm_unit = Transform("timm_unit", _timm_to_jax, _timm_to_torch)
