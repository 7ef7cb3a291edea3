"""The ResNet table, for the names of torchvision, which timm shares, and for SupContrast's.

torchvision `models/resnet.py`; HobbitLong/SupContrast `networks/resnet_big.py` holds the network
under `encoder.` and calls a block's downsample its shortcut.
"""

from converters.table import Table, conv, copy, join, row
from converters.tresnet import Naming
from mljax.backbones.resnet import ResNet

_COUNTER = "a counter of batches, which nothing reads"


def resnet_table(
    backbone: ResNet, naming: Naming, *, source: str = "", target: str = "backbone"
) -> Table:
    """Returns the table of a ResNet without its head.

    Args:
      backbone: tells which blocks and shortcuts there are; it may be abstract.
      naming: of the source; `original` and `timm` are the same here.
      source: what precedes the names in the state dict, besides SupContrast's `encoder.`.
      target: path of the backbone in the network.
    """
    shortcut = "downsample"
    if naming == "supcon":
        source, shortcut = f"{source}encoder.", "shortcut"
    tables = [_unit(f"{source}conv1", f"{source}bn1", f"{target}.stem")]
    for stage, blocks in enumerate(backbone.stages):
        for index, block in enumerate(blocks):
            old = f"{source}layer{stage + 1}.{index}"
            new = f"{target}.stages.{stage}.{index}"
            for number in range(1, 4 if hasattr(block, "conv3") else 3):
                unit = f"{new}.conv{number}"
                tables.append(_unit(f"{old}.conv{number}", f"{old}.bn{number}", unit))
            if block.shortcut is not None:
                pair = f"{old}.{shortcut}"
                tables.append(_unit(f"{pair}.0", f"{pair}.1", f"{new}.shortcut"))
    return join(*tables)


def _unit(conv_source: str, norm_source: str, target: str) -> Table:
    """Returns the table of a convolution and its batch norm."""
    return Table(
        (
            row(f"{conv_source}.weight", f"{target}.conv.kernel", conv),
            row(f"{norm_source}.weight", f"{target}.norm.scale", copy),
            row(f"{norm_source}.bias", f"{target}.norm.bias", copy),
            row(f"{norm_source}.running_mean", f"{target}.norm.mean", copy),
            row(f"{norm_source}.running_var", f"{target}.norm.var", copy),
        ),
        {f"{norm_source}.num_batches_tracked": _COUNTER},
    )
