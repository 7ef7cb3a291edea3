"""KMCL's training on a toy encoder: the trajectory of the original script."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters.systems.kmcl import kernel_mixture_table
from converters.table import Table, copy, export_tensors, import_tensors, join, linear, row
from mljax.config import loss, part
from mljax.heads.kernel_mixture import KernelMixture
from mljax.models.arrays import merge_model
from mljax.models.classifier import Classifier, ModelSpec
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms
from mljax.training.optimizer import make_optimizer
from mljax.training.schedules import hyperparameters, one_cycle
from mljax.training.state import make_state
from mljax.training.step import make_train_step
from tests import golden, networks

RUNS = [
    ("iso_bc", "", 1e-4),
    pytest.param("iso_bc", "_f64", 1e-11, marks=pytest.mark.slow),
    pytest.param("aniso_bc", "", 1e-4, marks=pytest.mark.slow),
    pytest.param("aniso_bc", "_f64", 1e-11, marks=pytest.mark.slow),
]
TERMS = {"asl": "asymmetric_loss", "nll": "reconstruction_loss", "bd": "kernel_contrastive_loss"}
# Before a batch norm, the gradient of a bias is rounding noise, which Adam scales to a full step.
NOISE = ("encoder.fc.bias", "encoder.bn.running_mean")
ENCODER_TABLE = Table(
    (
        row("encoder.fc.weight", "backbone.kernel", linear),
        row("encoder.fc.bias", "backbone.bias", copy),
        row("encoder.bn.weight", "backbone.scale", copy),
        row("encoder.bn.bias", "backbone.shift", copy),
        row("encoder.bn.running_mean", "backbone.mean", copy),
        row("encoder.bn.running_var", "backbone.var", copy),
    )
)


class _Encoder(nnx.Module):
    """relu(batch norm(linear)) of the first numbers of an image, as a map of one pixel."""

    def __init__(self, inputs, outputs):
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.scale = nnx.Param(jnp.zeros(outputs))
        self.shift = nnx.Param(jnp.zeros(outputs))
        self.mean = nnx.BatchStat(jnp.zeros(outputs))
        self.var = nnx.BatchStat(jnp.zeros(outputs))

    def __call__(self, images):
        x = images.reshape(len(images), -1)[:, : self.kernel.shape[0]]
        x = x @ self.kernel[...] + self.bias[...][None]
        mean, var = x.mean(0), x.var(0)
        unbiased = var * len(x) / (len(x) - 1)
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean
        self.var[...] = 0.9 * self.var[...] + 0.1 * unbiased
        x = (x - mean[None]) / jnp.sqrt(var + 1e-5)[None]
        return jax.nn.relu(x * self.scale[...][None] + self.shift[...][None])[:, None, None]


def _model(extra):
    """Returns the toy network, and the table of its state dict."""
    kwargs = {"covariance": extra["loss_case"]}
    head = KernelMixture(extra["enc_dim"], extra["K"], **kwargs, rngs=nnx.Rngs(0))
    spec = ModelSpec(
        backbone=part("toy"), head=part("kernel_mixture", **kwargs), num_classes=extra["K"]
    )
    model = Classifier(_Encoder(extra["in_features"], extra["enc_dim"]), head, spec)
    return model, join(ENCODER_TABLE, kernel_mixture_table(head))


# The losses that every config for KMCL has.
LOSSES = (
    loss("asymmetric_loss", gamma_neg=4.0, gamma_pos=0.0, clip=0.05, eps=1e-7),
    loss("reconstruction_loss", reduction="mean"),
    loss("kernel_contrastive_loss", reduction="mean"),
)


def _batch(case, step, dtype):
    extra = golden.cases("kmcl_train")[case]["extra"]
    x = golden.fill_input(f"kmcl.train.{case}.x{step}", (extra["B"], extra["in_features"]))
    y = golden.fill_input(f"kmcl.train.{case}.y{step}", (extra["B"], extra["K"])) < 0.35
    images = np.zeros((extra["B"], 1, 4, 3))
    images.reshape(extra["B"], -1)[:, : x.shape[1]] = x
    return {
        "images": jnp.asarray(images, dtype),
        "labels": jnp.asarray(y, dtype),
        "valid": np.ones(extra["B"], bool),
    }


@functools.cache
def _train(case, suffix):
    """Returns the metrics of every step, and the last state dicts, plain and averaged.

    The suffix `_f64` stands for float64.
    """
    extra = golden.cases("kmcl_train")[case]["extra"]
    steps = extra["epochs"] * extra["steps_per_epoch"]
    schedule = one_cycle(extra["max_lr"], steps, extra["steps_per_epoch"])
    rates = [hyperparameters(schedule, step) for step in range(steps)]
    with jax.enable_x64(bool(suffix)):
        model, table = _model(extra)
        import_tensors(table, golden.state_dict("kmcl_train", case), model)
        optimizer = make_optimizer(part("torch_adam", weight_decay=extra["weight_decay"]))
        state = make_state(model, optimizer, rates[0], ema_decay=extra["ema"])
        if suffix:
            state = networks.in_float64(state, optimizer(rates[0]))
        gradients = make_gradients(model, make_terms(LOSSES, ()))
        train_step = jax.jit(make_train_step(gradients, optimizer, ema_decay=extra["ema"]))
        history = []
        for step in range(steps):
            batch = _batch(case, step, float if suffix else "float32")
            state, metrics = train_step(state, batch, jax.random.key(0), rates[step])
            history.append({name: float(value) for name, value in metrics.items()})
        graph = nnx.graphdef(model)
        trained = {
            "final": merge_model(graph, state.params, state.statistics),
            "ema": merge_model(graph, state.ema_params, state.ema_statistics),
        }
        ends = {name: export_tensors(table, network) for name, network in trained.items()}
    return history, ends


@pytest.mark.parametrize(("case", "suffix", "tolerance"), RUNS)
def test_total_and_terms_of_every_step_are_the_originals(case, suffix, tolerance):
    history, _ = _train(case, suffix)
    expected = golden.arrays("kmcl_train", case)
    total = [metrics["loss"] for metrics in history]
    np.testing.assert_allclose(total, expected[f"loss{suffix}"], rtol=tolerance)
    for key, name in TERMS.items():
        found = [metrics[f"loss/{name}"] for metrics in history]
        np.testing.assert_allclose(found, expected[key + suffix], rtol=tolerance, err_msg=name)


@pytest.mark.parametrize(("case", "suffix", "tolerance"), RUNS)
def test_last_weights_and_their_average_are_the_originals(case, suffix, tolerance):
    _, ends = _train(case, suffix)
    compared = set()
    for key, array in golden.arrays("kmcl_train", case).items():
        # Of large arrays, the first numbers are stored; of the two largest in float32 alone.
        which, _, name = key.removesuffix("_f64").removesuffix("__first64").partition(".")
        if which not in ends or key.endswith("_f64") != bool(suffix) or name in NOISE:
            continue
        found = ends[which][name].ravel()[: array.size]
        np.testing.assert_allclose(found, array.ravel(), atol=tolerance, rtol=0, err_msg=key)
        compared.add(name)
    missing = golden.cases("kmcl_train")[case]["params"].keys() - compared - set(NOISE)
    assert missing <= ({"kmm.mean.weight", "kmm.var.weight"} if suffix else set()), missing
