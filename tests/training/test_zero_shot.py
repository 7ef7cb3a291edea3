"""Training on some classes, evaluating on others, by their word vectors."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from mljax import create_model
from mljax.checkpoints.checkpoint import load_model
from mljax.config.schema import part
from mljax.data.readers.nus_wide_zsl import nus_wide_zsl
from mljax.evaluate import evaluate
from mljax.models.classifier import with_classes
from mljax.training.run import make_run
from tests import layouts, miniature

HEAD = {"embedding_size": 16, "feed_forward_size": 16, "word_vector_size": 300}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Returns a recipe of three steps an epoch on a made-up folder."""
    root = tmp_path_factory.mktemp("data")
    layouts.nus_wide_zsl(root)
    reader = part("nus_wide_zsl", root=str(root), word_vectors="wordvec_array.npy")
    config = miniature.training_recipe("train.epochs=2", "data.batch_size=4")
    data = dataclasses.replace(config.data, reader=reader, augment=(), eval_batch_size=4)
    model = dataclasses.replace(config.model, head=part("ml_decoder", **HEAD))
    return dataclasses.replace(config, data=data, model=model)


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """Returns the workdir and the evaluation of a run."""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, *miniature.train(config, workdir)


@pytest.mark.slow
def test_training_reads_the_training_classes_and_evaluation_the_others(trained):
    workdir, evaluation, printed = trained
    assert evaluation.scores.shape == (layouts.COUNT, 2)
    assert "3 classes, 2 others to evaluate" in printed
    assert "fox" in printed
    latest = max((workdir / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    assert load_model(latest).class_names == ("bird", "cat", "dog")


@pytest.mark.slow
def test_the_best_network_is_for_the_evaluated_classes(config, trained):
    workdir, _, _ = trained
    model = load_model(workdir)
    assert model.class_names == ("fox", "owl")
    found, names, _ = evaluate(model, config.data, split="val")
    assert names == ("fox", "owl")
    best = max((workdir / "best").glob("[0-9]*"))
    assert f"mAP {found.mean_average_precision:.2f}" in (best / "README.md").read_text()


@pytest.mark.slow
def test_a_network_is_evaluated_on_the_classes_of_the_split(config, trained):
    model = load_model(trained[0])
    found, names, _ = evaluate(model, config.data, split="train")
    assert names == ("bird", "cat", "dog")
    assert found.scores.shape == (layouts.COUNT, 3)


def test_the_losses_see_the_word_vectors_of_the_training_classes(config):
    run = make_run(config)
    train = nus_wide_zsl("train", **config.data.reader.kwargs)
    found = run.state.stats["head.word_vectors"]
    np.testing.assert_array_equal(found, train.word_vectors)


def test_other_classes_change_the_logits_but_not_the_parameters():
    model = create_model(
        "tresnet_m",
        "ml_decoder",
        num_classes=2,
        backbone_kwargs=miniature.BACKBONE.kwargs,
        head_kwargs=HEAD,
        rngs=nnx.Rngs(0),
    )
    words = np.random.default_rng(0).normal(size=(3, 300)).astype(np.float32)
    three = with_classes(model, ("a", "b", "c"), words)
    one = with_classes(three, ("b",), words[1:2])
    images = np.random.default_rng(1).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    apply = jax.jit(lambda model, images: model(images)["logits"])
    np.testing.assert_allclose(apply(one, images), apply(three, images)[:, 1:2], atol=1e-5)
    assert one.class_names == ("b",)
    assert one.spec.num_classes == 1
    assert one.head.pool is three.head.pool is model.head.pool


def test_word_vectors_need_a_head_that_reads_them():
    words = np.zeros((2, 300), np.float32)
    with pytest.raises(ValueError, match="a linear head cannot read: take an ml_decoder head"):
        with_classes(miniature.model(), ("a", "b"), words)


def test_word_vectors_of_another_width_are_refused(config):
    head = part("ml_decoder", **HEAD | {"word_vector_size": 50})
    model = dataclasses.replace(config.model, head=head)
    with pytest.raises(ValueError, match="word_vectors must be .k, 50."):
        make_run(dataclasses.replace(config, model=model))
