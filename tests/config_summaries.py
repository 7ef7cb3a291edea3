"""The configs that ship, each with every value of its arguments, and what comes out of them.

    python -m tests.config_summaries

writes `config_summaries.json` anew: of each config and size the parameters of the network, the
steps for the published size of the data set, and the learning rate at the start, peak and end.
"""

import functools
import inspect
import json
import runpy
import typing
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from mljax.config import list_configs, load_config
from mljax.config.part import resolved
from mljax.config.shipped import FOLDER
from mljax.models.classifier import make_abstract

FILE = Path(__file__).with_suffix(".json")

# {config: (training images, classes)}. COCO and ChestX-ray14 count the images with an object or a
# finding; NUS-WIDE's split that ASL and ML-Decoder used is not told, this is the official one.
_COCO, _OPEN_IMAGES, _NUS_WIDE = 82_081, 9_011_219, 161_789
DATA_SETS = {
    "aam/coco": (117_266, 80),
    "aam/nus_wide": (119_103, 81),
    "aam/vg500": (82_904, 500),
    "aam/voc": (5_011, 20),
    "quickstart": (4_096, 10),
    "quickstart_aam": (4_096, 10),
    "quickstart_kmcl": (4_096, 10),
    "quickstart_mulcon": (4_096, 10),
    "quickstart_partial": (4_096, 10),
    "quickstart_supcon": (4_096, 10),
    "probe": (4_096, 10),
    "asl/coco": (_COCO, 80),
    "asl/csv": (1_209, 5),
    "asl/nus_wide": (_NUS_WIDE, 81),
    "asl/open_images": (_OPEN_IMAGES, 9_605),
    "asl/voc": (5_011, 20),
    "csl/coco": (_COCO, 80),
    "csl/open_images": (_OPEN_IMAGES, 9_605),
    "kmcl/adp": (14_134, 9),
    "kmcl/chest_xray": (36_024, 14),
    "kmcl/coco": (_COCO, 80),
    "kmcl/coco_subset": (1_000, 80),
    "kmcl/voc": (5_011, 20),
    "csra/coco": (_COCO, 80),
    "csra/voc": (5_011, 20),
    "ml_gcn/coco": (_COCO, 80),
    "ml_gcn/voc": (5_011, 20),
    "mulcon/coco": (_COCO, 80),
    "ml_decoder/coco": (_COCO, 80),
    "ml_decoder/nus_wide_zero_shot": (_NUS_WIDE, 925),
    "ml_decoder/open_images": (_OPEN_IMAGES, 9_605),
    "ml_decoder/stanford_cars": (8_144, 196),
    "query2label/coco": (_COCO, 80),
    "supcon/cifar": (50_000, 10),
}
# Commands of the docstrings with more than one argument, or with one that has no list of values.
OTHERS = (
    "aam/coco:loss=asl",
    "aam/coco:head=linear,loss=am",
    "csl/coco:mode=negative,gamma_neg=0,gamma_unannotated=0",
    "csl/coco:mode=ignore,hiding=random_per_sample",
    "csl/open_images:prior=prior.csv",
)


def arguments(name):
    """Returns {argument: [value, ...]}, the default first, of those with a fixed set of values."""
    get_config = runpy.run_path(str(FOLDER / f"{name}.py"))["get_config"]
    return {
        p.name: [p.default, *(x for x in typing.get_args(p.annotation) if x != p.default)]
        for p in inspect.signature(get_config).parameters.values()
        if typing.get_origin(p.annotation) is typing.Literal
    }


def variants(*only):
    """Returns each config by name with every value of every argument, one at a time.

    Args:
      only: the arguments that are varied; none are all.
    """
    names = []
    for config in list_configs():
        names.append(config.name)
        for argument, values in arguments(config.name).items():
            if not only or argument in only:
                names += [f"{config.name}:{argument}={value}" for value in values[1:]]
    return names


@functools.cache
def _backbone(part):
    """Returns the parameters and the features of a backbone; nothing is computed."""
    make = resolved(part, "backbone")
    network = make_abstract(lambda rngs: make(dtype=None, rngs=rngs))
    return _count(network), network.num_features


def _head(part, features, classes):
    make = resolved(part, "head")
    network = make_abstract(lambda rngs: make(features, classes, dtype=None, rngs=rngs))
    return _count(network)


def _count(network):
    return sum(x.size for x in jax.tree.leaves(nnx.state(network, nnx.Param)))


def _rounded(rate):
    return float(f"{rate:.4g}")


def summarize(name):
    """Returns the summary of a config as JSON holds it."""
    config = load_config(name)
    images, classes = DATA_SETS[name.partition(":")[0]]
    backbone, features = _backbone(config.model.backbone)
    per_epoch = images // config.data.batch_size
    steps = round(config.train.epochs * per_epoch)
    rate = resolved(config.schedule, "schedule")(config.optimizer.peak_lr, steps, per_epoch)
    sampled = np.linspace(0, steps - 1, 2001).round().astype(int).tolist()
    rates = [rate["learning_rate"](step) for step in sampled]
    return {
        "images": images,
        "classes": classes,
        "parameters": backbone + _head(config.model.head, features, classes),
        "steps": steps,
        "learning_rate": {
            "start": _rounded(rates[0]),
            "peak": _rounded(max(rates)),
            "end": _rounded(rates[-1]),
        },
    }


def main():
    summaries = {name: summarize(name) for name in variants("size")}
    FILE.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
