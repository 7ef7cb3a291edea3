"""Initial weights: fresh, or those of a checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.checkpoints.checkpoint import save_model
from mljax.config import part
from mljax.data.readers.digits import CLASS_NAMES
from mljax.data.records import Classes
from mljax.models.arrays import merge_model, split_model
from mljax.training.initialize import initialize_from, make_model
from tests import networks


def _small(value, *, num_classes=10, head=networks.HEAD, **kwargs):
    """Returns a network whose arrays are all of one value."""
    backbone = part("tresnet_m", layers=(0, 0, 0, 0), width=8, **kwargs)
    model = networks.model(backbone=backbone, head=head, num_classes=num_classes)
    graph, params, statistics = split_model(model)
    fill = jax.tree.map(lambda a: jnp.full_like(a, value), (params, statistics))
    return merge_model(graph, *fill)


def _values(model):
    """Returns {"backbone": its values, "head": its values}."""
    _, params, statistics = split_model(model)
    values = {"backbone": set(), "head": set()}
    for path, array in (params | statistics).items():
        values[path.split(".")[0]] |= set(np.unique(array).tolist())
    return values


def test_initial_weights_come_from_a_checkpoint(tmp_path):
    path = str(save_model(tmp_path / "source", _small(7)))
    model, text = initialize_from(_small(1), path)
    assert _values(model) == {"backbone": {7}, "head": {7}}
    assert text == f"backbone and head, from {path}"


def test_a_head_for_other_classes_stays_fresh(tmp_path):
    path = str(save_model(tmp_path / "source", _small(7, num_classes=4)))
    model, text = initialize_from(_small(1), path)
    assert _values(model) == {"backbone": {7}, "head": {1}}
    assert text == f"backbone; the head is fresh, from {path}"


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Returns two networks with another head, of which the second has a projection too, saved."""
    folder, saved = tmp_path_factory.mktemp("stages"), []
    for value, kwargs in ((7, {}), (1, {"projection_size": 4})):
        head = part("label_attention", embedding_size=4, num_heads=2, **kwargs)
        model = _small(value, head=head)
        saved.append((model, str(save_model(folder / str(value), model))))
    return saved


def test_a_head_that_has_more_starts_from_the_other(stages):
    (_, path), (model, _) = stages
    found, text = initialize_from(model, path)
    assert text == f"backbone and head, whose projection is fresh, from {path}"
    for name, array in split_model(found)[1].items():
        assert (array == (1 if name.startswith("head.projection.") else 7)).all(), name


def test_a_head_that_lacks_a_part_stays_fresh(stages):
    (model, _), (_, path) = stages
    found, text = initialize_from(model, path)
    assert _values(found) == {"backbone": {1}, "head": {7}}
    assert text == f"backbone; the head is fresh, from {path}"


def test_initial_weights_of_another_backbone_are_refused(tmp_path):
    path = str(save_model(tmp_path / "source", networks.model()))
    with pytest.raises(ValueError, match="its backbone is not this tresnet_m") as error:
        initialize_from(_small(1), path)
    assert f"model.init_from {path}" in str(error.value)
    assert "backbone.stages.0.0.conv1.conv.kernel: expected nothing, got (3, 3, 8, 8)" in str(
        error.value
    )


def test_missing_initial_weights_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        initialize_from(_small(1), str(tmp_path / "absent"))


BACKBONE, HEAD = part("tresnet_m", layers=(0, 0, 0, 0), width=8), part("linear")


def _make(**changes):
    arguments = {"preprocessing": networks.PREPROCESSING, "seed": 0} | changes
    return make_model(BACKBONE, HEAD, Classes(names=CLASS_NAMES), **arguments)


def test_a_fresh_network_knows_its_classes_and_images():
    model, text = _make()
    assert text == "fresh"
    assert model.class_names == CLASS_NAMES
    assert model.preprocessing == networks.PREPROCESSING


def test_the_seed_decides_the_fresh_weights():
    first, same, other = (_make(seed=seed)[0].head.linear.kernel[...] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_a_network_from_a_checkpoint_is_for_the_classes_of_the_data(tmp_path):
    source = _small(7)
    source.class_names = tuple(f"other {name}" for name in CLASS_NAMES)
    path = save_model(tmp_path / "source", source)
    model, text = _make(init_from=str(path))
    assert text == f"backbone and head, from {path}"
    assert _values(model) == {"backbone": {7}, "head": {7}}
    assert model.class_names == CLASS_NAMES
