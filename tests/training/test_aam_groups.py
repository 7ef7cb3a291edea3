"""The parameter groups of AAM's whole networks: the rate and the decay of every parameter."""

import jax.numpy as jnp
import numpy as np
import pytest

from converters.systems import aam, query2label
from mljax.config import part
from mljax.models.arrays import split_model
from mljax.models.classifier import ModelSpec, abstract_model
from mljax.training.optimizer import make_optimizer, no_bias_decay, torch_sgd
from tests import golden

ATTENTION = part("label_graph", layer=part("graph_attention"), word_vector_size=300)
HEADS = {
    "plain_b0": part("cosine"),
    "mld_b0": part("ml_decoder", scale=30.0),
    "gcn_b0": part("graph_reweighting", graph=ATTENTION),
    "q2l_b0": part("query2label", embedding_size=1280, feed_forward_size=1280, learned_slope=True),
}


def _expected(case):
    """Returns {torch name: (rate, decay)}, and the names that no group has."""
    outputs = golden.cases("aam_groups")[case]["outputs"]
    groups = {
        name: (group["lr"], group["weight_decay"])
        for group in outputs["groups"]
        for name in group["names"]
    }
    return groups, set(outputs["in_no_group"])


def _found(params, groups, rate, decay):
    """Returns {path: (rate, decay)}, from steps of plain SGD on arrays of ones."""
    ones = {path: jnp.ones((1,) * array.ndim) for path, array in params.items()}
    transform = make_optimizer(part(torch_sgd, weight_decay=decay), groups)({"learning_rate": rate})
    zeros = {path: 0 * array for path, array in ones.items()}
    state = transform.init(ones)
    by_gradient, _ = transform.update(ones, state, zeros)
    by_decay, _ = transform.update(zeros, state, ones)
    rates = {path: -float(update.item()) for path, update in by_gradient.items()}
    return {
        path: (rates[path], -float(update.item()) / rates[path])
        for path, update in by_decay.items()
    }


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("plain_b0", "gcn_b0") else name
        for name in golden.names("aam_groups")
    ],
)
def test_groups_are_the_originals(case):
    hyper = golden.cases("aam_groups")[case]["hyper"]
    spec = ModelSpec(backbone=part("efficientnet_v2_b0"), head=HEADS[case], num_classes=20)
    model = abstract_model(spec)
    undecayed = ("head.queries", "head.projection.kernel") if case == "q2l_b0" else ()
    params = split_model(model)[1]
    found = _found(params, no_bias_decay(*undecayed), hyper["lr"], hyper["weight_decay"])

    expected, left_out = _expected(case)
    if case == "q2l_b0":
        # As all biases here; the original's projection is no part of its division.
        assert expected.pop("input_proj.bias") == (hyper["lr"], 0.0)
    system = query2label if case == "q2l_b0" else aam
    rows = system.table(model, "deep_object_reid").rows
    sources = {target: source for row in rows for source in row.sources for target in row.targets}
    for path, groups in found.items():
        if sources[path] in expected:
            np.testing.assert_allclose(groups, expected[sources[path]], rtol=1e-6, err_msg=path)
        else:
            # The original forgets Query2Label's transformer, which is trained here.
            assert sources[path] in left_out | {"input_proj.bias"}, path
    # The export has what nothing reads too: slopes, and classifiers behind which a head stands.
    written = {name for row in rows for name in row.sources}
    assert expected.keys() <= written, expected.keys() - written
