"""MulCon's training on a small network: the trajectories of both stages, and the average."""

import jax
import numpy as np
import pytest
from flax import nnx

from converters.rows import affine, conv_norm
from converters.systems.mulcon import label_attention_table
from converters.table import export_tensors, import_tensors, join
from mljax.config import ParameterGroup, loss, part
from mljax.heads.label_attention import LabelAttention
from mljax.layers.norm import BatchNorm
from mljax.losses import asymmetric_loss, label_contrastive_loss
from mljax.models.classifier import Classifier, ModelSpec
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms
from mljax.training.optimizer import make_optimizer
from mljax.training.state import make_state
from mljax.training.step import make_train_step
from tests import golden, networks

CLASSES = 5


class _Encoder(nnx.Module):
    """activation(batch norm(convolution))."""

    def __init__(self, features, strides=2, padding=1, activation=jax.nn.relu):
        sides, rngs = ((padding, padding),) * 2, nnx.Rngs(0)
        self.conv = nnx.Conv(3, features, (3, 3), strides, padding=sides, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(features)
        self.activation = activation

    def __call__(self, images):
        return self.activation(self.norm(self.conv(images)))


class _MeanHead(nnx.Module):
    """The mean over space and a linear layer."""

    def __init__(self, features, classes):
        self.linear = nnx.Linear(features, classes, rngs=nnx.Rngs(0))

    def __call__(self, features, *, rngs=None):
        return {"logits": self.linear(features.mean((1, 2)))}


def _squares(logits):
    return logits**2


def _table(model):
    head = model.head
    encoder = conv_norm("netE.0", "netE.1", "backbone")
    if isinstance(head, LabelAttention):
        return join(encoder, label_attention_table(head))
    return join(encoder, affine("netC", "head.linear"))


def _joined(tensors):
    """Returns the tensors with the classifiers of `_MeanHead` as one layer."""
    names = [name for name in tensors if name.startswith("netC.")]
    joined = {name: tensors[name] for name in tensors if name not in names}
    for kind in ("weight", "bias") if names else ():
        joined[f"netC.{kind}"] = np.concatenate([tensors[n] for n in names if n.endswith(kind)])
    return joined


def _model(backbone, head, tensors):
    spec = ModelSpec(backbone=part("toy"), head=part("linear"), num_classes=CLASSES)
    model = Classifier(backbone, head, spec)
    import_tensors(_table(model), tensors, model)
    return model


def _tensors(model, arrays):
    """Returns arrays by our paths as torch's tensors."""
    flat = {
        tuple(int(key) if key.isdigit() else key for key in path.split(".")): array
        for path, array in arrays.items()
    }
    changed = nnx.merge(nnx.graphdef(model), nnx.from_flat_state(flat))
    return export_tensors(_table(changed), changed)


def _run(model, terms, optimizer, rates, batches, ema_decay=0.0):
    """Yields the metrics and the state of each step, in float64."""
    state = make_state(model, optimizer, rates, ema_decay=ema_decay)
    state = networks.in_float64(state, optimizer(rates))
    gradients = make_gradients(model, make_terms(terms, ()))
    step = jax.jit(make_train_step(gradients, optimizer, ema_decay=ema_decay))
    for images, labels in batches:
        batch = {"images": images, "labels": labels, "valid": np.ones(len(labels), bool)}
        state, metrics = step(state, batch, jax.random.key(0), rates)
        yield metrics, state


def _terms(hyper, stage):
    classify = loss(
        asymmetric_loss,
        gamma_neg=0.0,
        gamma_pos=0.0,
        clip=None,
        reduction="mean",
        weight=1 / CLASSES,
    )
    contrast = loss(
        label_contrastive_loss,
        temperature=0.2,
        base_temperature=0.2,
        denominator_size=hyper["denominator_size"],
        weight=0.5,
    )
    return (classify,) if stage == 1 else (classify, contrast)


@pytest.mark.slow
@pytest.mark.parametrize("case", golden.names("mulcon_train"))
def test_every_loss_and_the_last_weights_are_the_originals(case):
    row, expected = golden.cases("mulcon_train")[case], golden.arrays("mulcon_train", case)
    hyper, stage = row["hyper"], int(case[5])
    images = golden.fill_input(*row["inputs"]["img"]["fill"]).transpose(0, 1, 3, 4, 2)
    labels = expected["gt_label"]
    if stage == 2:
        # The original has all first views, then all second ones.
        images = np.stack([images[:, :3], images[:, 3:]], axis=2)
        labels = labels[:, :3]
    head = LabelAttention(
        hyper["dim_in"],
        CLASSES,
        embedding_size=hyper["dim_out"],
        projection_size=None if stage == 1 else hyper["proj"],
        rngs=nnx.Rngs(0),
    )
    model = _model(_Encoder(hyper["dim_in"]), head, golden.state_dict("mulcon_train", case))
    decay = {"weight_decay": hyper["weight_decay"]}
    algorithm = part("torch_adamw", **decay)
    slow = [ParameterGroup(pattern="backbone.*", rate_factor=hyper["lrp"])]
    if stage == 2:
        algorithm = part("torch_sgd", momentum=0.9, **decay)
        slow += [
            ParameterGroup(pattern=f"head.{name}*", rate_factor=hyper["lrp"])
            for name in ("queries", "places", "read", "labels")
        ]
    with jax.enable_x64(True):
        steps = list(
            _run(
                model,
                _terms(hyper, stage),
                make_optimizer(algorithm, slow),
                {"learning_rate": hyper["lr"]},
                zip(images.astype(float), labels.astype(float), strict=True),
            )
        )
        for number, (metrics, _) in enumerate(steps):
            found = {
                "total": metrics["loss"],
                "attention": metrics["loss/asymmetric_loss"] / CLASSES,
            }
            if stage == 2:
                found["contrastive"] = metrics["loss/label_contrastive_loss"]
            else:
                found["attention"] *= labels[0].size
            for name, value in found.items():
                # The original hands its losses out in float32, of whatever they were computed.
                np.testing.assert_allclose(
                    value, expected[f"loss_{name}_f64"][number], rtol=1e-6, err_msg=name
                )
        state = steps[-1][1]
        last = _tensors(model, state.params | state.statistics)
    for name, array in last.items():
        # The original's attention is stored in float32 alone.
        wide = f"final:{name}_f64" in expected
        tolerance = 1e-9 if wide else 1e-5
        if stage == 1 and name.endswith("fc_k.bias"):
            # No softmax changes with it, so that its gradient is rounding, of which AdamW takes
            # little but the sign: a step of the rate either way.
            tolerance = hyper["steps"] * hyper["lr"]
        np.testing.assert_allclose(
            array, expected[f"final:{name}" + "_f64" * wide], atol=tolerance, err_msg=name
        )


def test_the_average_is_of_weights_and_statistics():
    row, expected = golden.cases("mulcon_schedule")["ema"], golden.arrays("mulcon_schedule", "ema")
    hyper = row["hyper"]
    tensors = _joined(golden.state_dict("mulcon_schedule", "ema"))
    model = _model(_Encoder(4, 1, 0, lambda x: x), _MeanHead(4, 2), tensors)
    images = golden.fill_input(*row["inputs"]["x"]["fill"]).transpose(0, 1, 3, 4, 2)
    with jax.enable_x64(True):
        *_, (_, state) = _run(
            model,
            (loss(_squares),),
            make_optimizer(part("torch_sgd")),
            {"learning_rate": hyper["lr"]},
            [(batch, np.zeros((len(batch), CLASSES))) for batch in images.astype(float)],
            ema_decay=hyper["decay"],
        )
        found = {
            "model": _tensors(model, state.params | state.statistics),
            "ema": _tensors(model, state.ema_params | state.ema_statistics),
        }
    for which, arrays in found.items():
        wanted = {
            key.removeprefix(f"{which}:").removesuffix("_f64"): array
            for key, array in expected.items()
            if key.startswith(f"{which}:") and key.endswith("_f64") and "tracked" not in key
        }
        for name, array in _joined(wanted).items():
            np.testing.assert_allclose(arrays[name], array, atol=1e-10, err_msg=f"{which} {name}")
