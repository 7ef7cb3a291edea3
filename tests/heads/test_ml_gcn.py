"""ML-GCN's head on a given map, against the published code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.config import part
from mljax.data.co_occurrence import conditional_probabilities
from mljax.heads.ml_gcn import MLGCN
from mljax.layers.graph import adjacency
from tests import golden

_apply = jax.jit(lambda head, features: head(features)["logits"])


@pytest.mark.parametrize(
    ("group", "case", "map_name", "words_name"),
    [
        ("aam_mlgcn", "head_k20", "map", "words"),
        pytest.param("aam_mlgcn", "head_k80", "map", "words", marks=pytest.mark.slow),
        ("mlgcn_model", "head_voc", "feature", "word"),
    ],
)
def test_logits_equal_reference(group, case, map_name, words_name):
    row, expected = golden.cases(group)[case], golden.arrays(group, case)
    tensors = golden.state_dict(group, case)
    probabilities = conditional_probabilities(expected["counts"], expected["nums"])
    graph = part("label_graph", word_vector_size=300)
    head = nnx.eval_shape(lambda: MLGCN(2048, row["hyper"]["K"], graph=graph, rngs=nnx.Rngs(0)))
    values = [
        (head.graph.edges, adjacency(probabilities, threshold=0.4, reweight=0.25)),
        (head.graph.nodes, golden.fill_input(*row["inputs"][words_name]["fill"])),
        (head.graph.layer1.kernel, tensors["gc1.weight"]),
        (head.graph.layer2.kernel, tensors["gc2.weight"]),
    ]
    for variable, array in values:
        variable.set_value(jnp.asarray(array, jnp.float32))
    features = golden.fill_input(*row["inputs"][map_name]["fill"]).transpose(0, 2, 3, 1)
    logits = _apply(head, jnp.asarray(features))
    # Sums over 2048 features of logits up to some ten.
    tolerance = 1e-5 * max(1, np.abs(expected["logits"]).max())
    np.testing.assert_allclose(logits, expected["logits"], atol=tolerance)
