"""AAM's training strategy on a toy network: the trajectory of the original loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.config import loss, part
from mljax.heads.cosine import Cosine
from mljax.layers.norm import BatchNorm
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier, ModelSpec
from mljax.training.gradients import make_gradients, sharpness_aware
from mljax.training.objective import make_terms
from mljax.training.optimizer import make_optimizer, no_bias_decay
from mljax.training.schedules import hyperparameters, one_cycle
from mljax.training.state import make_state
from mljax.training.step import make_train_step
from tests import golden, networks

RUNS = [
    pytest.param("engine_sam_nbd", "float32", 1e-4, marks=pytest.mark.slow),
    ("engine_sam_nbd", "float64", 1e-11),
    pytest.param("engine_sam_wdall", "float64", 1e-11, marks=pytest.mark.slow),
    ("engine_sgd_nbd", "float64", 1e-11),
]
# torch's names to ours; a linear layer is the other way around there.
NAMES = {
    "fc1.weight": "backbone.linear.kernel",
    "fc1.bias": "backbone.linear.bias",
    "norm.weight": "backbone.norm.scale",
    "norm.bias": "backbone.norm.bias",
    "norm.running_mean": "backbone.norm.mean",
    "norm.running_var": "backbone.norm.var",
    "head.weight": "head.cosine.kernel",
}


def _torchs(arrays):
    """Returns arrays by torch's names, in its layout."""
    return {
        theirs: np.asarray(arrays[ours]).T if theirs == "fc1.weight" else np.asarray(arrays[ours])
        for theirs, ours in NAMES.items()
    }


class _Encoder(nnx.Module):
    """relu(batch norm(linear)) of the first numbers of an image, as a map of one pixel."""

    def __init__(self, inputs, outputs):
        self.linear = nnx.Linear(inputs, outputs, rngs=nnx.Rngs(0))
        self.norm = BatchNorm(outputs)

    def __call__(self, images):
        x = images.reshape(len(images), -1)[:, : self.linear.in_features]
        return jax.nn.relu(self.norm(self.linear(x)))[:, None, None]


def _model(case):
    params = golden.state_dict("aam_opt", case)
    prefix = next(iter(params)).removesuffix("fc1.weight")
    params = {name.removeprefix(prefix): array for name, array in params.items()}
    outputs, inputs = params["fc1.weight"].shape
    classes = params["head.weight"].shape[1]
    scale = golden.cases("aam_opt")[case]["hyper"]["scale"]
    head = Cosine(outputs, classes, scale=scale, rngs=nnx.Rngs(0))
    spec = ModelSpec(backbone=part("toy"), head=part("cosine", scale=scale), num_classes=classes)
    graph, *ours = split_model(Classifier(_Encoder(inputs, outputs), head, spec))
    filled = {
        NAMES[name]: jnp.asarray(array.T if name == "fc1.weight" else array)
        for name, array in params.items()
    }
    return merge_model(graph, *({name: filled[name] for name in arrays} for arrays in ours))


def _train(case, dtype):
    """Yields the hyperparameters, the metrics and the state of every step."""
    hyper, arrays = golden.cases("aam_opt")[case]["hyper"], golden.arrays("aam_opt", case)
    steps = hyper["epochs"] * hyper["batches"]
    schedule = one_cycle(
        hyper["lr"],
        steps,
        hyper["batches"],
        warmup_fraction=hyper["pct_start"],
        initial_factor=100.0,
        final_factor=float(hyper["lr_decay_factor"]),
        cycle_beta1=False,
        cycle_momentum=True,
    )
    term = loss(
        "angular_margin_loss",
        margin=hyper["m"],
        present_share=hyper["k"],
        gamma_neg=float(hyper["gamma_neg"]),
        gamma_pos=float(hyper["gamma_pos"]),
    )
    algorithm = part(
        "torch_sgd", momentum=hyper["sgd_momentum"], weight_decay=hyper["weight_decay"]
    )
    optimizer = make_optimizer(algorithm, no_bias_decay() if hyper["nbd"] else ())
    model = _model(case)
    gradients = make_gradients(model, make_terms((term,), ()))
    if hyper["sam"]:
        gradients = sharpness_aware(gradients, rho=hyper["rho"])
    rates = hyperparameters(schedule, 0)
    state = make_state(model, optimizer, rates, ema_decay=hyper["ema"])
    if dtype == "float64":
        state = networks.in_float64(state, optimizer(rates))
    step = jax.jit(make_train_step(gradients, optimizer, ema_decay=hyper["ema"]))
    x, labels = arrays["x"], arrays["t"]
    for number in range(steps):
        index = number % len(x)
        images = np.zeros((x.shape[1], 1, 2, 3))
        images.reshape(len(images), -1)[:, : x.shape[2]] = x[index]
        batch = {
            "images": jnp.asarray(images, dtype),
            "labels": jnp.asarray(labels[index], dtype),
            "valid": np.ones(len(images), bool),
        }
        rates = hyperparameters(schedule, number)
        state, metrics = step(state, batch, jax.random.key(0), rates)
        yield rates, metrics, state


@pytest.mark.parametrize(("case", "dtype", "tolerance"), RUNS)
def test_every_step_is_the_originals(case, dtype, tolerance):
    expected, hyper = golden.arrays("aam_opt", case), golden.cases("aam_opt")[case]["hyper"]
    suffix = "_f64" if dtype == "float64" else ""
    factors = [2.0 if "fc1.bias" in group["names"] else 1.0 for group in hyper["groups"]]
    if not hyper["nbd"]:
        factors = [1.0]
    kept = hyper["iterations_kept"]
    with jax.enable_x64(dtype == "float64"):
        for number, (rates, metrics, state) in enumerate(_train(case, dtype)):
            found = {
                "lr": rates["learning_rate"] * np.array(factors),
                "momentum": np.full(len(factors), rates["momentum"]),
                "loss_second_pass": metrics["loss"],
            }
            for name, value in found.items():
                np.testing.assert_allclose(
                    value, expected[name + suffix][number], rtol=tolerance, err_msg=name
                )
            if number not in kept:
                continue
            for which, arrays in (
                ("after", state.params | state.statistics),
                ("ema", state.ema_params | state.ema_statistics),
            ):
                for name, array in _torchs(arrays).items():
                    np.testing.assert_allclose(
                        array,
                        expected[f"{which}_{name}{suffix}"][kept.index(number)],
                        rtol=tolerance,
                        atol=tolerance,
                        err_msg=f"{which} {name}, step {number}",
                    )
    assert number == len(expected["lr"]) - 1
