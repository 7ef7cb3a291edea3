"""Classifiers by name: their parts, their arrays, and other classes."""

import jax
import numpy as np
import pytest
from flax import nnx

from mljax.config import Part, part
from mljax.data.records import Classes
from mljax.heads.linear import Linear
from mljax.models.arrays import class_arrays, merge_model, split_model
from mljax.models.classifier import (
    ModelSpec,
    abstract_model,
    create_model,
    for_classes,
    list_models,
)
from tests import networks

WORDS = np.ones((10, 5), np.float32)


class OwnHead(Linear):
    """A head of the user's."""


def _create(*arguments, **options):
    """Returns a small network with shapes in place of arrays."""
    options = {"num_classes": 10, "backbone_kwargs": networks.BACKBONE.kwargs} | options
    return nnx.eval_shape(lambda: create_model(*arguments, **options, rngs=nnx.Rngs(0)))


def test_parts_are_given_by_name_or_as_callables():
    by_name = _create("tresnet_m", "bottleneck", head_kwargs={"embedding_size": 4})
    assert by_name.spec.head == part("bottleneck", embedding_size=4)
    own = _create("tresnet_m", OwnHead)
    assert type(own.head) is OwnHead
    assert own.spec.head.name == "tests.models.test_classifier:OwnHead"
    assert type(abstract_model(own.spec).head) is OwnHead


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("tresnet_n",), {}, "unknown backbone 'tresnet_n'; did you mean tresnet_"),
        (("tresnet_m", "linaer"), {}, "unknown head 'linaer'; did you mean linear"),
        (("tresnet_m",), {"head_kwargs": {"x": 1}}, "head linear takes no argument 'x'"),
        (("tresnet_m",), {"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_what_makes_no_network_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        _create(*arguments, **options)


def test_a_network_is_in_eval_mode():
    model = _create("tresnet_m", "ml_decoder", head_kwargs={"embedding_size": 16})
    assert model.head.layer.dropout.deterministic


def test_models_are_listed_by_pattern():
    assert list_models("resnet1*") == ["resnet101", "resnet18"]
    assert set(list_models("*tresnet*")) < set(list_models())


def test_split_arrays_merge_into_the_same_network():
    graph, params, statistics = split_model(networks.model())
    assert "head.linear.bias" in params
    assert not params.keys() & statistics.keys()
    _, *again = split_model(merge_model(graph, params, statistics))
    jax.tree.map(np.testing.assert_array_equal, again, [params, statistics])


def test_a_head_that_does_not_depend_on_classes_stays():
    model = networks.model()
    assert for_classes(model, Classes(names=tuple("abcdefghij"))) is model
    with pytest.raises(ValueError, match="a linear head cannot read"):
        for_classes(model, Classes(names=tuple("abcdefghij"), vectors=WORDS))


def test_a_head_for_other_classes_shares_the_parameters():
    kwargs = {"embedding_size": 16, "feed_forward_size": 16, "word_vector_size": 5}
    head = Part(name="ml_decoder", kwargs=kwargs)
    model = abstract_model(ModelSpec(backbone=networks.BACKBONE, head=head, num_classes=3))
    model.preprocessing = networks.PREPROCESSING
    classes = Classes(names=tuple("abcdefghij"), vectors=WORDS)
    other = for_classes(model, classes)
    assert (other.spec.num_classes, other.class_names) == (10, classes.names)
    assert other.preprocessing == networks.PREPROCESSING
    assert other.backbone is model.backbone
    assert other.head.pool is model.head.pool
    arrays = class_arrays(other)
    assert arrays.keys() == {"head.word_vectors"}
    np.testing.assert_array_equal(arrays["head.word_vectors"], WORDS)
    assert model.spec.num_classes == 3
