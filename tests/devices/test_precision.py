"""Precision of products, and equal bits: what is asked of the compiler, seen in the programs."""

import dataclasses
import re
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from converters import verify
from mljax import calibrate, create_model, embed, evaluate, predict
from mljax.checkpoints.checkpoint import save_model
from mljax.config import ModelConfig, loss, part
from mljax.config.load import override
from mljax.data.readers.digits import CLASS_NAMES
from mljax.devices import compiler
from mljax.devices.mesh import make_mesh, state_sharding
from mljax.models import inference
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms
from mljax.training.optimizer import make_optimizer
from mljax.training.state import make_state
from mljax.training.step import jit_step, make_train_step
from mljax.training.summary import describe_numbers
from tests import networks, small_configs
from tests.photos import save_photo

DEFAULT, HIGHEST = (
    {(operation, precision) for operation in ("dot_general", "convolution")}
    for precision in ("DEFAULT", "HIGHEST")
)


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Takes back what the suite sets: float32 everywhere."""
    with jax.default_matmul_precision(None):
        yield


def precisions(program):
    """Returns the precisions of the products of a lowered program, by operation."""
    lines = [line for line in program.splitlines() if re.search(r"dot_general|convolution\(", line)]
    return {
        (operation, precision)
        for line in lines
        for operation in re.findall(r"dot_general|convolution", line)[:1]
        for precision in re.findall(r"DEFAULT|HIGHEST", line)
    }


class Patches(nnx.Module):
    """A layer of patches, lowered in no time."""

    num_features = 4

    def __init__(self, *, dtype=None, rngs):
        self.conv = nnx.Conv(3, 4, (8, 8), strides=8, dtype=dtype, rngs=rngs)

    def __call__(self, images):
        return nnx.relu(self.conv(images))


def patches():
    model = create_model(Patches, num_classes=10, rngs=nnx.Rngs(0))
    model.class_names, model.preprocessing = CLASS_NAMES, networks.PREPROCESSING
    return model


@pytest.mark.parametrize(("precision", "expected"), [("default", DEFAULT), ("highest", HIGHEST)])
def test_all_products_of_a_step_have_the_precision(precision, expected):
    model, mesh = patches(), make_mesh()
    optimizer, rates = make_optimizer(part("torch_adam")), {"learning_rate": 0.1}
    gradients = make_gradients(model, make_terms((loss("asymmetric_loss"),), ()))
    state = make_state(model, optimizer, rates)
    step = jit_step(
        make_train_step(gradients, optimizer),
        mesh,
        state_sharding(mesh, state, fsdp=False),
        matmul_precision=precision,
    )
    batch = {
        "images": np.zeros((2, 16, 16, 3), np.float32),
        "labels": np.zeros((2, 10), np.float32),
        "valid": np.ones(2, bool),
    }
    program = step.lower(state, batch, jax.random.key(0), rates).as_text()
    assert precisions(program) == expected


@pytest.fixture
def programs(tmp_path):
    """Returns a function that tells the precisions of all programs compiled since."""
    folder = tmp_path / "programs"
    folder.mkdir()
    inference._make_forward.cache_clear()
    jax.config.update("jax_dump_ir_to", str(folder))
    yield lambda: set().union(*(precisions(file.read_text()) for file in folder.iterdir()))
    jax.config.update("jax_dump_ir_to", "")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = small_configs.config(reader=part("digits", num_images=8))
    config = dataclasses.replace(config, model=ModelConfig(backbone=part(Patches)))
    return save_model(tmp_path_factory.mktemp("run") / "model", patches(), config=config)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], DEFAULT),
        (["--matmul-precision", "highest"], HIGHEST),
        (["--set", "eval.matmul_precision=highest"], HIGHEST),
        (["--set", "eval.matmul_precision=highest", "--matmul-precision", "default"], DEFAULT),
    ],
)
@pytest.mark.parametrize("command", [evaluate, predict, embed])
def test_commands_take_the_config_s_and_their_own(
    command, options, expected, checkpoint, tmp_path, programs
):
    rest = ["--output", str(tmp_path / "figures.json")]
    if command is predict:
        rest = [str(save_photo(tmp_path / "a.png"))]
    if command is embed:
        rest = ["--output", str(tmp_path / "vectors"), "--layer", "logits"]
    assert command.main(["--checkpoint", str(checkpoint), *options, *rest]) == 0
    assert programs() == expected


def test_calibration_computes_in_float32_everywhere(checkpoint, programs):
    assert calibrate.main(["--checkpoint", str(checkpoint)]) == 0
    assert programs() == HIGHEST


class Folding(nnx.Module):
    def folded(self):
        jax.jit(jnp.matmul)(np.eye(3), np.eye(3))
        return self


def test_what_no_image_changes_has_the_precision_too(programs):
    model = patches()
    model.head = Folding()
    inference.make_apply(model, matmul_precision="highest")
    assert programs() == {("dot_general", "HIGHEST")}


def test_verify_computes_in_float32_everywhere(programs):
    verify._outputs(patches(), np.zeros((2, 16, 16, 3), np.float32))
    assert programs() == HIGHEST


# ---- equal bits


def _mesh(platform):
    device = types.SimpleNamespace(platform=platform)
    return mock.Mock(spec=Mesh, devices=np.array([device], object))


def test_equal_bits_are_asked_for_on_gpus_alone_by_options_that_jaxlib_knows():
    plain, equal = (
        compiler.compiler_options(_mesh("gpu"), deterministic=deterministic)
        for deterministic in (False, True)
    )
    assert plain == {}
    assert equal == {"xla_gpu_deterministic_ops": "True", "xla_gpu_autotune_level": "0"}
    for platform in ("cpu", "tpu"):
        found = compiler.compiler_options(_mesh(platform), deterministic=True)
        assert found == compiler.compiler_options(_mesh(platform))


def test_a_jaxlib_without_the_options_is_an_error(monkeypatch):
    monkeypatch.setattr(compiler, "_DETERMINISTIC_ON_GPU", {"xla_gpu_no_such_option": "1"})
    with pytest.raises(ValueError, match="train.deterministic: .* xla_gpu_no_such_option"):
        compiler.compiler_options(_mesh("gpu"), deterministic=True)


@pytest.mark.parametrize(
    ("platform", "changes", "rows"),
    [
        ("cpu", [], {}),
        ("cpu", ["train.deterministic=True"], {"equal bits": "nothing to set on CPUs"}),
        ("gpu", [], {"products": "precision default; on GPUs default is TF32"}),
        ("gpu", ["model.dtype=bfloat16"], {}),
        ("gpu", ["train.matmul_precision=highest"], {"products": "precision highest"}),
        (
            "gpu",
            ["train.deterministic=True", "model.dtype=bfloat16"],
            {"equal bits": "asked of XLA, which takes longer steps for it; promised for the same"},
        ),
        (
            "tpu",
            ["train.deterministic=True", "model.dtype=bfloat16"],
            {"equal bits": "not promised"},
        ),
    ],
)
def test_the_summary_says_what_is_promised(platform, changes, rows):
    found = describe_numbers(override(small_configs.config(), changes), platform)
    assert found.keys() == rows.keys()
    for name, start in rows.items():
        assert found[name].startswith(start)
