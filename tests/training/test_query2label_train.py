"""Query2Label's training on a toy network: the schedule and the trajectory of the original loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters.rows import affine
from converters.systems.query2label import query2label_table
from converters.table import conv, export_tensors, import_tensors, join
from mljax.config import loss, part
from mljax.heads.query2label import Query2Label
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier, ModelSpec
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms
from mljax.training.optimizer import make_optimizer
from mljax.training.schedules import hyperparameters, one_cycle
from mljax.training.state import make_state
from mljax.training.step import make_train_step
from tests import golden, networks


def test_rate_and_beta1_are_the_originals():
    hyper = golden.cases("q2l_schedule")["readme"]["hyper"]
    expected = golden.arrays("q2l_schedule", "readme")
    total = hyper["epochs"] * hyper["steps_per_epoch"]
    schedule = one_cycle(hyper["max_lr"], total, hyper["steps_per_epoch"])
    for ours, theirs in (("learning_rate", "lr"), ("beta1", "beta1")):
        found = [schedule[ours](step) for step in range(total)]
        np.testing.assert_allclose(found, expected[theirs], rtol=1e-12)


class _Encoder(nnx.Module):
    """relu(conv) of stride 4."""

    def __init__(self, features):
        self.conv = nnx.Conv(3, features, (3, 3), strides=4, padding=1, rngs=nnx.Rngs(0))

    def __call__(self, images):
        return jax.nn.relu(self.conv(images))


def _table(head):
    return join(affine("backbone.conv", "backbone.conv", conv), query2label_table(head))


def _model(hyper):
    features, classes = hyper["hidden_dim"], hyper["K"]
    kwargs = {"feed_forward_size": hyper["dim_feedforward"], "dropout": hyper["dropout"]}
    spec = ModelSpec(backbone=part("toy"), head=part("query2label", **kwargs), num_classes=classes)
    head = nnx.eval_shape(lambda: Query2Label(features, classes, **kwargs, rngs=nnx.Rngs(0)))
    model = Classifier(_Encoder(features), head, spec)
    import_tensors(_table(head), golden.state_dict("q2l_schedule", "train_tiny"), model)
    return model


@pytest.mark.slow
def test_every_step_is_the_originals():
    """In float64, but for the table of positions, which is float32 there and here."""
    row = golden.cases("q2l_schedule")["train_tiny"]
    hyper, expected = row["hyper"], golden.arrays("q2l_schedule", "train_tiny")
    images = golden.fill_input(*row["inputs"]["img"]["fill"]).transpose(0, 1, 3, 4, 2)
    schedule = one_cycle(hyper["max_lr"], hyper["steps"], hyper["steps"] // 2)
    term = loss(
        "asymmetric_loss",
        gamma_neg=float(hyper["gamma_neg"]),
        gamma_pos=float(hyper["gamma_pos"]),
        clip=hyper["clip"],
        eps=hyper["eps"],
        reduction="mean",
        weight=1000 / hyper["K"],
    )
    model = _model(hyper)
    optimizer = make_optimizer(part("torch_adamw", weight_decay=hyper["weight_decay"]))
    rates = hyperparameters(schedule, 0)
    with jax.enable_x64(True):
        state = make_state(model, optimizer, rates, ema_decay=hyper["ema_decay"])
        state = networks.in_float64(state, optimizer(rates))
        gradients = make_gradients(model, make_terms((term,), ()))
        step = jax.jit(make_train_step(gradients, optimizer, ema_decay=hyper["ema_decay"]))
        for number in range(hyper["steps"]):
            batch = {
                "images": jnp.asarray(images[number], float),
                "labels": jnp.asarray(expected["targets"][number], float),
                "valid": np.ones(hyper["B"], bool),
            }
            rates = hyperparameters(schedule, number)
            state, metrics = step(state, batch, jax.random.key(0), rates)
            np.testing.assert_allclose(metrics["loss"], expected["loss_f64"][number], rtol=1e-6)
        graph, _, statistics = split_model(model)
        for which, params in (("final", state.params), ("ema", state.ema_params)):
            tensors = export_tensors(_table(model.head), merge_model(graph, params, statistics))
            names = [name for name in tensors if f"{which}:{name}_f64" in expected]
            assert len(names) == 6
            for name in names:
                np.testing.assert_allclose(
                    tensors[name],
                    expected[f"{which}:{name}_f64"],
                    atol=1e-6,
                    err_msg=f"{which} {name}",
                )
