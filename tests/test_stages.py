"""Stages that `init_from` joins: what a probe reads of a run, and what it leaves as it is."""

import jax
import numpy as np
import pytest

from mljax.checkpoints.checkpoint import save_model
from mljax.config import load_config, override, part
from mljax.devices.mesh import put_batch
from mljax.models.arrays import merge_model, split_model
from mljax.train import main
from mljax.training.preparation import prepare
from mljax.training.schedules import hyperparameters
from tests import networks, small_configs

BACKBONE = part("resnet18", layers=(0, 1, 0, 0), width=4, cifar_stem=True)
SMALL = (
    "model.backbone.kwargs.layers=(0,1,0,0)",
    "model.backbone.kwargs.width=4",
    "data.reader.kwargs.num_images=32",
    "data.batch_size=16",
    "data.eval_batch_size=16",
)


def _step(config):
    """Returns the training of a config, its arrays at the start and after one step."""
    training = prepare(config)
    before = jax.device_get((training.state.params, training.state.statistics))
    with training.train_batches(start_step=0) as batches:
        batch = {k: v for k, v in next(batches).items() if k != "index"}
    rates = hyperparameters(training.schedule, 1)
    inputs = put_batch(batch, training.mesh), jax.random.key(0), rates
    state, metrics = training.step(training.pack(training.state), *inputs)
    state = training.unpack(state)
    assert metrics["finite"]
    return training, before, jax.device_get((state.params, state.statistics))


@pytest.mark.slow
def test_a_probe_of_the_pre_training_trains_its_classifier_alone(tmp_path):
    pretrain = override(load_config("quickstart_supcon"), SMALL)
    training, _, (params, statistics) = _step(pretrain)
    network = merge_model(split_model(training.model)[0], params, statistics)
    # Where the best network of a run lies in its workdir.
    save_model(tmp_path / "best" / "1", network, config=pretrain)
    probe = override(load_config(f"quickstart_supcon:stage=probe,init_from={tmp_path}"), SMALL)
    _, before, after = _step(probe)
    for number, arrays in enumerate((params, statistics)):
        kept = {path: array for path, array in arrays.items() if path.startswith("backbone.")}
        for path, array in kept.items():
            np.testing.assert_array_equal(before[number][path], array)
            np.testing.assert_array_equal(after[number][path], array)
    assert not np.array_equal(before[0]["head.linear.kernel"], after[0]["head.linear.kernel"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    config = small_configs.config(crop=part("random_resized_crop"), views=2)
    folder = tmp_path_factory.mktemp("run") / "model"
    return save_model(folder, networks.model(backbone=BACKBONE), config=config)


def test_a_probe_of_any_checkpoint_has_its_network_and_its_data(checkpoint):
    config = load_config(f"probe:init_from={checkpoint}")
    trained = small_configs.config()
    assert config.model.backbone == BACKBONE
    assert config.data == trained.data
    assert (config.model.head, config.model.frozen) == (part("linear"), ("backbone",))
    other = load_config(f"probe:init_from={checkpoint},data=asl/csv,labels=one")
    assert other.data.reader.name == "csv"
    assert other.data.preprocessing == networks.PREPROCESSING
    assert other.eval.best_by == "top1"


def test_a_probe_of_a_checkpoint_without_config_asks_for_data(tmp_path):
    folder = save_model(tmp_path / "model", networks.model(backbone=BACKBONE))
    with pytest.raises(ValueError, match="holds no config: name one whose data are read"):
        load_config(f"probe:init_from={folder}")
    assert load_config(f"probe:init_from={folder},data=quickstart").data.reader.name == "digits"


@pytest.mark.slow
def test_a_probe_of_any_checkpoint_is_one_command(checkpoint, capsys):
    arguments = ["--config", f"probe:init_from={checkpoint}", "--dry-run"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "backbone and head, from" in printed
