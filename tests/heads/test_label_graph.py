"""The graph branches of AAM and ML-GCN: published values, edges, vectors, folding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.checkpoints.checkpoint import load_model, save_model
from mljax.config import Part, part
from mljax.data.records import Classes
from mljax.heads.cosine import Cosine
from mljax.heads.graph_reweighting import GraphReweighting
from mljax.heads.label_graph import LabelGraph
from mljax.heads.linear import Linear
from mljax.heads.ml_gcn import MLGCN
from mljax.layers.variables import OfClasses
from mljax.models.classifier import for_classes
from mljax.models.folding import fold
from tests import golden, networks
from tests.heads.angular_margin import angular_margin, asymmetric, summary

POOLINGS = {"avg": "average", "max": "max", "avg+max": "average_plus_max"}
LAYERS = {"gan": "graph_attention", "gcn": "graph_convolution"}
REWEIGHTING = golden.names("aam_graph", "gat_am", "gat_asl", "gcn_am", "gcn_asl")
LABELS = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, -1]], np.int8)
THREE = Classes(names=("cat", "dog", "sea lion"), labels=LABELS)


def _graph(hyper, inputs):
    size = inputs["inp (state-dict entry)"]["fill"][1][1]
    layer = Part(name=LAYERS[hyper.get("layer_type", "gcn")])
    return part("label_graph", layer=layer, word_vector_size=size)


def _reference_head(group, case):
    """Returns a head with the weights of a case, and {the reference's name: our path}."""
    row = golden.cases(group)[case]
    hyper, inputs = row["hyper"], row["inputs"]
    pooling = Part(name=POOLINGS[hyper.get("pooling_type") or hyper["pooling"]])
    scale = 17.0 if hyper["loss"] == "am_binary" else None
    arguments = {"graph": _graph(hyper, inputs), "rngs": nnx.Rngs(0)}
    size = hyper["features"], hyper["K"]
    if group == "aam_gcnclassifier":
        head = MLGCN(
            *size, hidden_features=hyper["hidden"], scale=scale, pooling=pooling, **arguments
        )
    else:
        inner = part("linear") if scale is None else part("cosine", scale=scale)
        inner = Part(name=inner.name, kwargs=inner.kwargs | {"pooling": pooling})
        head = GraphReweighting(*size, head=inner, **arguments)
    head.eval()
    graph, tensors = head.graph, golden.state_dict(group, case)
    variables = {"inp": graph.nodes}
    for number, layer in ((1, graph.layer1), (2, graph.layer2)):
        weight = f"gc{number}.weight" if f"gc{number}.weight" in tensors else f"gc{number}.W"
        variables[weight] = layer.kernel
        if f"gc{number}.a" in tensors:
            variables[f"gc{number}.a"] = layer.scores
    if "head.bias" in tensors:
        variables |= {"head.weight": head.head.linear.kernel, "head.bias": head.head.linear.bias}
    elif "head.weight" in tensors:
        variables["head.weight"] = head.head.cosine.kernel
    tensors["inp"] = golden.fill_input(*inputs["inp (state-dict entry)"]["fill"])
    for name, variable in variables.items():
        variable[...] = _ours(name, tensors[name], variable.shape)
    graph.edges[...] = golden.arrays(group, case)["A"]
    return head, variables


def _ours(name, tensor, shape):
    if tensor.shape == shape:
        return tensor
    return tensor.T if name == "head.weight" else tensor.reshape(shape)


def _check(group, case, dtype, suffix, tolerance):
    row, expected = golden.cases(group)[case], golden.arrays(group, case)
    head, variables = _reference_head(group, case)
    features = golden.fill_input(*row["inputs"]["map"]["fill"]).transpose(0, 2, 3, 1)
    normalized = row["hyper"]["loss"] == "am_binary"
    with jax.enable_x64(dtype == "float64"):
        graph, state, rest = nnx.split(head, (nnx.Param, OfClasses), ...)
        state = jax.tree.map(lambda x: jnp.asarray(x, dtype), state)
        features, targets = (jnp.asarray(x, dtype) for x in (features, expected["targets"]))

        def loss(state, features):
            outputs = nnx.merge(graph, state, rest)(features)
            found = outputs["cosines" if normalized else "logits"]
            if normalized:
                return angular_margin(found, targets, 17.0, 2.0, 1.0), found
            # The classifiers' case is of the sum of the logits.
            is_sum = group == "aam_gcnclassifier"
            return found.sum() if is_sum else asymmetric(found, targets), found

        run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        (value, logits), (gradients, features) = run(state, features)
        gradients = nnx.merge(graph, gradients, rest)
    np.testing.assert_allclose(logits, expected["logits" + suffix], atol=tolerance)
    np.testing.assert_allclose(value, expected["loss" + suffix], rtol=tolerance)
    found = {"grad_map": np.asarray(features).transpose(0, 3, 1, 2)}
    flat = dict(nnx.to_flat_state(nnx.state(gradients)))
    ours = dict(nnx.to_flat_state(nnx.state(head)))
    for name, variable in variables.items():
        (path,) = [p for p, v in ours.items() if v.get_value() is variable.get_value()]
        gradient = np.asarray(flat[path].get_value())
        transposed = name == "head.weight" and not normalized
        found[f"g_{name}"] = gradient.T if transposed else gradient
    assert {n for n in expected if n.startswith("g_") and not n.endswith("f64")} <= found.keys()
    for name, gradient in found.items():
        theirs = expected[name + suffix]
        mine = summary(gradient.astype(np.float64), len(theirs) - 3)
        # A softmax does not depend on the reader's scores: their gradient is what rounding leaves.
        rounding = 1e-7 if dtype == "float32" and name.endswith(".a") else 0
        atol = tolerance * theirs[2] + rounding
        np.testing.assert_allclose(mine, theirs, atol=atol, rtol=0, err_msg=name)
    return head


QUICK = ("gat_asl_max_k20", "gcn_am_avg_k20")
CASES = [
    pytest.param("aam_graph", name, marks=() if name in QUICK else pytest.mark.slow)
    for name in REWEIGHTING
]
CASES += [("aam_gcnclassifier", name) for name in ("am_k20", "asl_k20")]


@pytest.mark.parametrize(("group", "case"), CASES)
def test_logits_and_gradients_equal_reference(group, case):
    head = _check(group, case, "float32", "", 1e-5)
    if group == "aam_graph":
        expected = golden.arrays(group, case)["channel_weights"]
        np.testing.assert_allclose(head.folded().weights[...], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("group", "case"), [("aam_graph", "gat_am_avg_k5"), ("aam_gcnclassifier", "asl_k20")]
)
def test_logits_and_gradients_equal_reference_in_float64(group, case):
    # A is stored in float32, which the reference's float64 did not round.
    _check(group, case, "float64", "_f64", 1e-10 if group == "aam_graph" else 1e-6)


def _head(kind=GraphReweighting, classes=THREE, **arguments):
    """Returns a small head of 8 features in eval mode, and the same before `for_classes`."""
    graph = part("label_graph", **arguments)
    fresh = kind(8, len(classes.names), graph=graph, hidden_features=4, rngs=nnx.Rngs(0))
    fresh.eval()
    return fresh.for_classes(classes), fresh


@jax.jit
def _outputs(head, features):
    return head(features)


FEATURES = jnp.asarray(golden.fill_input("features", (2, 3, 2, 8), -1, 1))


def test_the_edges_are_those_of_the_training_labels():
    head, fresh = _head(threshold=0.6, reweight=0.5)
    assert np.isnan(fresh.graph.edges[...]).all()
    # P(dog | cat) = 2/3, P(cat | dog) = 2/3, P(sea lion | dog) = 1/3, P(dog | sea lion) = 1.
    expected = [[1, 0.25, 0], [0.5, 1, 0], [0, 0.25, 1]]
    np.testing.assert_allclose(head.graph.edges[...], expected, atol=1e-5)
    assert head.graph.layer1.kernel is fresh.graph.layer1.kernel
    # Other labels, as those of the evaluated split, change nothing.
    other = Classes(names=THREE.names, labels=1 - LABELS)
    np.testing.assert_array_equal(head.for_classes(other).graph.edges[...], head.graph.edges[...])


@pytest.mark.parametrize("kind", [GraphReweighting, MLGCN])
def test_outputs_are_nan_until_the_classes_are_known(kind):
    head, fresh = _head(kind)
    assert np.isnan(_outputs(fresh, FEATURES)["logits"]).all()
    assert np.isfinite(_outputs(head, FEATURES)["logits"]).all()


def test_classes_without_words_stand_for_what_they_occur_with():
    head, _ = _head()
    expected = [[1, 2 / 3, 0], [2 / 3, 1, 1 / 3], [0, 1, 1]]
    np.testing.assert_allclose(head.graph.nodes[...], expected, atol=1e-6)


def test_an_unnamed_class_takes_the_mean_of_its_company():
    words = np.array([[3, 0], [np.nan, np.nan], [0, 3]], np.float32)
    classes = Classes(names=THREE.names, labels=LABELS, vectors=words)
    head, _ = _head(classes=classes, word_vector_size=2)
    # The dog is with the cat twice, and with the sea lion once.
    np.testing.assert_allclose(head.graph.nodes[...], [[3, 0], [2, 1], [0, 3]], atol=1e-6)


@pytest.mark.usefixtures("little_optimization")
def test_an_unnamed_class_may_learn_its_vector():
    words = np.array([[3, 0], [np.nan, np.nan], [0, 3]], np.float32)
    classes = Classes(names=THREE.names, labels=LABELS, vectors=words)
    head, _ = _head(classes=classes, word_vector_size=2, learn_unnamed=True)
    gradient = jax.grad(lambda head: _outputs(head, FEATURES)["logits"].sum())(head)
    moved = np.abs(gradient.graph.learned[...]).max(1) > 0
    np.testing.assert_array_equal(moved, [False, True, False])
    alone, _ = _head(learn_unnamed=True)
    assert alone.graph.learned.shape == (3, 300)
    assert np.isfinite(_outputs(alone, FEATURES)["logits"]).all()


def test_words_come_from_a_vocabulary_and_edges_from_a_file(tmp_path):
    (tmp_path / "glove.txt").write_text("sea 0 2\nlion 2 0\ncat 1 5\n")
    np.savez(
        tmp_path / "counts.npz", adj=np.array([[0, 2, 0], [2, 0, 1], [0, 1, 0]]), nums=[3, 3, 1]
    )
    files = {"word_vectors": str(tmp_path / "glove.txt")}
    files["co_occurrence"] = str(tmp_path / "counts.npz")
    head, _ = _head(classes=Classes(names=THREE.names), **files)
    nodes = [[1, 5], [(2 * 1 + 1) / 3, (2 * 5 + 1) / 3], [1, 1]]
    np.testing.assert_allclose(head.graph.nodes[...], nodes, atol=1e-6)
    np.testing.assert_allclose(head.graph.edges[...], _head()[0].graph.edges[...], atol=1e-6)


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="over 3 classes, the data have 2"):
        _head()[0].for_classes(Classes(names=("a", "b")))


def test_words_of_other_classes_are_refused():
    words = np.ones((3, 2), np.float32)
    classes = Classes(names=THREE.names, labels=LABELS, vectors=words)
    head, _ = _head(classes=classes, word_vector_size=2)
    head.for_classes(classes)
    with pytest.raises(ValueError, match="other word vectors than those of the graph"):
        head.for_classes(Classes(names=THREE.names, vectors=2 * words))
    with pytest.raises(ValueError, match=r"expected \[3, 4\], got \[3, 2\]"):
        _head(classes=classes, word_vector_size=4)
    with pytest.raises(ValueError, match="none of 3 classes, such as 'cat', has a word vector"):
        _head(word_vector_size=2)


def _products(function, *arguments):
    """Returns the multiplications in the matrix products and convolutions of a function."""
    total, jaxprs = 0, [jax.make_jaxpr(function)(*arguments).jaxpr]
    while jaxprs:
        for equation in jaxprs.pop().eqns:
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                jaxprs += [inner] if hasattr(inner, "eqns") else []
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                shape = equation.invars[0].aval.shape
                depth = np.prod([shape[axis] for axis in contracted])
                total += int(depth) * equation.outvars[0].aval.size
            assert equation.primitive.name != "conv_general_dilated"
    return total


@pytest.mark.usefixtures("little_optimization")
@pytest.mark.parametrize(
    ("kind", "alone"),
    [(GraphReweighting, Cosine), (MLGCN, Cosine)],
)
@pytest.mark.parametrize("layer", LAYERS.values())
def test_a_folded_head_is_equal_and_costs_what_it_costs_without_the_graph(kind, alone, layer):
    head, _ = _head(kind, layer=Part(name=layer))
    folded = head.folded()
    expected = _outputs(head, FEATURES)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5),
        _outputs(folded, FEATURES),
        expected,
    )
    least = _products(alone(8, 3, rngs=nnx.Rngs(0)), FEATURES)
    assert _products(folded, FEATURES) == least > 0
    # Two layers from 3 to 4 to 8 features.
    assert _products(head, FEATURES) >= least + 3 * (3 * 4 + 4 * 8)
    assert folded.graph is None


@pytest.mark.usefixtures("little_optimization")
def test_the_graph_goes_before_ml_decoder_and_any_other_head():
    inner = part("ml_decoder", embedding_size=16, feed_forward_size=8, scale=20.0)
    head = GraphReweighting(8, 3, head=inner, rngs=nnx.Rngs(0))
    head.eval()
    head = head.for_classes(THREE)
    outputs = _outputs(head, FEATURES)
    assert outputs.keys() == {"logits", "cosines", "scale"}
    alone = head.head(FEATURES * head.folded().weights[...][None, None, None])
    np.testing.assert_allclose(outputs["logits"], alone["logits"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["graph_reweighting", "ml_gcn"])
def test_a_network_is_saved_without_files_and_folds(tmp_path, name):
    head = part(name, hidden_features=4)
    model = networks.model(head=head, num_classes=3, class_names=THREE.names)
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model")
    graph = loaded.spec.head.kwargs["graph"]
    assert for_classes(loaded, THREE).spec == loaded.spec
    stored = {"word_vectors": None, "word_vector_size": 3, "co_occurrence": None}
    assert graph.kwargs == stored
    features = jnp.ones((1, 2, 2, model.backbone.num_features))
    expected = model.head(features)["logits"]
    for other in (loaded, for_classes(loaded, THREE), fold(loaded)):
        np.testing.assert_allclose(other.head(features)["logits"], expected, atol=1e-5)
    assert fold(loaded).head.graph is None
    with pytest.raises(ValueError, match="a folded network has lost its parameters"):
        save_model(tmp_path / "folded", fold(loaded))
    with pytest.raises(ValueError, match="a folded network serves no other classes"):
        for_classes(fold(loaded), THREE)


def test_the_graph_is_no_parameter():
    state = nnx.state(_head(learn_unnamed=True)[0], nnx.Param)
    assert set(state["graph"]) == {"learned", "layer1", "layer2"}
    assert isinstance(_head()[0].graph, LabelGraph)
    assert isinstance(GraphReweighting(8, 3, head=part("linear"), rngs=nnx.Rngs(0)).head, Linear)
