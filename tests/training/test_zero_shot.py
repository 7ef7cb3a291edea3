"""Training on some classes, evaluating on others, by their word vectors."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from mljax import create_model
from mljax.checkpoints.checkpoint import load_model
from mljax.config import part
from mljax.data.readers.nus_wide_zsl import nus_wide_zsl
from mljax.data.records import Classes
from mljax.evaluation.evaluate import evaluate_model
from mljax.evaluators.multilabel import Multilabel
from mljax.models.classifier import for_classes
from mljax.training.preparation import prepare
from tests import layouts, networks, runs, small_configs

HEAD = {"embedding_size": 16, "feed_forward_size": 16, "word_vector_size": 300}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Returns a config of three steps an epoch on a made-up folder."""
    root = tmp_path_factory.mktemp("data")
    layouts.nus_wide_zsl(root)
    reader = part(nus_wide_zsl, root=str(root), word_vectors="wordvec_array.npy")
    no_blocks = "model.backbone.kwargs.layers=(0, 0, 0, 0)"
    config = small_configs.training_config("train.epochs=2", "data.batch_size=4", no_blocks)
    data = dataclasses.replace(config.data, reader=reader, augment=(), eval_batch_size=4)
    model = dataclasses.replace(config.model, head=part("ml_decoder", **HEAD))
    return dataclasses.replace(config, data=data, model=model)


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """Returns the workdir of a run, its figures and what was printed."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, *runs.train(config, workdir)


def _evaluate(model, config, split):
    records = nus_wide_zsl(split, **config.data.reader.kwargs)
    return evaluate_model(model, records, evaluators=[Multilabel()], batch_size=4)[0]


@pytest.mark.slow
def test_training_reads_the_training_classes_and_evaluation_the_others(trained):
    workdir, figures, printed = trained
    assert figures["images"] == layouts.COUNT
    assert [row["name"] for row in figures["classes"]] == ["fox", "owl"]
    assert "3 classes, 2 others to evaluate" in printed
    assert "fox" in printed
    latest = max((workdir / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    assert load_model(latest).class_names == ("bird", "cat", "dog")


@pytest.mark.slow
def test_the_best_network_is_for_the_evaluated_classes(config, trained):
    workdir, _, _ = trained
    model = load_model(workdir)
    assert model.class_names == ("fox", "owl")
    found = _evaluate(model, config, "val")
    assert [row["name"] for row in found["classes"]] == ["fox", "owl"]
    (best,) = (workdir / "best").iterdir()
    assert f"mAP {found['mAP']:.2f}" in (best / "README.md").read_text()


@pytest.mark.slow
def test_a_network_is_evaluated_on_the_classes_of_the_split(config, trained):
    model = load_model(trained[0])
    found = _evaluate(model, config, "train")
    assert [row["name"] for row in found["classes"]] == ["bird", "cat", "dog"]
    assert found["images"] == layouts.COUNT


@pytest.mark.slow
def test_the_losses_see_the_word_vectors_of_the_training_classes(config):
    records = nus_wide_zsl("train", **config.data.reader.kwargs)
    found = prepare(config).state.statistics["head.word_vectors"]
    np.testing.assert_array_equal(found, records.class_vectors)


@pytest.mark.slow
def test_other_classes_change_the_logits_but_not_the_parameters():
    model = create_model(
        "tresnet_m",
        "ml_decoder",
        num_classes=2,
        backbone_kwargs=networks.BACKBONE.kwargs,
        head_kwargs=HEAD,
        rngs=nnx.Rngs(0),
    )
    words = np.random.default_rng(0).normal(size=(3, 300)).astype(np.float32)
    three = for_classes(model, Classes(names=("a", "b", "c"), vectors=words))
    one = for_classes(three, Classes(names=("b",), vectors=words[1:2]))
    images = np.random.default_rng(1).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    apply = jax.jit(lambda model, images: model(images)["logits"])
    np.testing.assert_allclose(apply(one, images), apply(three, images)[:, 1:2], atol=1e-5)
    assert one.class_names == ("b",)
    assert one.spec.num_classes == 1
    assert one.head.pool is three.head.pool is model.head.pool


def test_word_vectors_need_a_head_that_reads_them():
    words = np.zeros((2, 300), np.float32)
    with pytest.raises(ValueError, match="a linear head cannot read: .* for_classes"):
        for_classes(networks.model(), Classes(names=("a", "b"), vectors=words))


def test_word_vectors_of_another_width_are_refused(config):
    head = part("ml_decoder", **HEAD | {"word_vector_size": 50})
    model = dataclasses.replace(config.model, head=head)
    with pytest.raises(ValueError, match=r"expected \[3, 50\], got \(3, 300\)"):
        prepare(dataclasses.replace(config, model=model))
