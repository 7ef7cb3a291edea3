"""ML-Decoder against the published code: values, gradients, groups, dropout, zero-shot mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters.systems.ml_decoder import ml_decoder_table
from converters.table import export_tensors, import_tensors
from mljax.checkpoints.checkpoint import load_model, save_model
from mljax.data.records import Classes
from mljax.heads.ml_decoder import Frozen, MLDecoder
from mljax.models.classifier import create_model
from tests import golden

QUICK = ("tiny", "tiny_zsl", "k20")
CASES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in golden.names("mldecoder")
]
TINY = {"embedding_size": 16, "feed_forward_size": 32}


def _classes(vectors, count=None):
    count = len(vectors) if count is None else count
    return Classes(names=tuple(map(str, range(count))), vectors=vectors)


@functools.cache
def _reference_head(case):
    """Returns the head of a case with its weights, in eval mode."""
    row = golden.cases("mldecoder")[case]
    hyper = row["hyper"]
    groups = hyper["num_of_groups"]
    words = None
    if hyper["zsl"]:
        words = golden.fill_input(*row["inputs"]["word_vectors"]["fill"][:4]).T
    # Abstract: initial values would be thrown away.
    head = nnx.eval_shape(
        lambda: MLDecoder(
            hyper["initial_num_features"],
            hyper["num_classes"],
            num_groups=None if groups < 0 else groups,
            embedding_size=hyper["decoder_embedding"],
            word_vector_size=None if words is None else words.shape[1],
            rngs=nnx.Rngs(0),
        )
    )
    if words is not None:
        head = head.for_classes(_classes(words))
    head.eval()
    import_tensors(_table(head), golden.state_dict("mldecoder", case), nnx.Dict(head=head))
    return head


def _table(head):
    return ml_decoder_table(head, "original")


def _inputs(case, dtype):
    inputs = golden.cases("mldecoder")[case]["inputs"]
    features = golden.fill_input(*inputs["x"]["fill"])
    # Tokens without a shape are a map of one row.
    features = features[:, None] if features.ndim == 3 else features.transpose(0, 2, 3, 1)
    cotangent = golden.fill_input(*inputs["cotangent"]["fill"])
    return jnp.asarray(features, dtype), jnp.asarray(cotangent, dtype)


def _logits_and_gradients(case, dtype):
    """Returns the logits, the gradients by torch name and that of the features in torch's order."""
    head = _reference_head(case)
    features, cotangent = _inputs(case, dtype)
    graph, params, rest = nnx.split(head, nnx.Param, ...)
    params, rest = jax.tree.map(lambda x: x.astype(dtype), (params, rest))

    def score(params, features):
        logits = nnx.merge(graph, params, rest)(features)["logits"]
        return (logits * cotangent).sum(), logits

    run = jax.jit(jax.value_and_grad(score, (0, 1), has_aux=True))
    (_, logits), (params, features) = run(params, features)
    gradients = nnx.merge(graph, params, rest)
    tensors = export_tensors(_table(gradients), nnx.Dict(head=gradients))
    tokens = features.ndim == 4 and features.shape[1] == 1 and features.shape[2] > 1
    features = features[:, 0] if tokens else features.transpose(0, 3, 1, 2)
    return logits, tensors, np.asarray(features)


def _check_case(case, dtype, logits_tolerance, gradient_tolerance):
    suffix = "_f64" if dtype == "float64" else ""
    expected = golden.arrays("mldecoder", case)
    with jax.enable_x64(dtype == "float64"):
        logits, gradients, features = _logits_and_gradients(case, dtype)
    assert logits.dtype == dtype
    np.testing.assert_allclose(logits, expected["logits" + suffix], atol=logits_tolerance)
    names = golden.cases("mldecoder")[case]["extra"]["grad_names"]
    norms = [np.linalg.norm(gradients[name].astype(np.float64)) for name in names]
    np.testing.assert_allclose(norms, expected["grad_norms" + suffix], rtol=gradient_tolerance)
    # The gradient of the features is stored in float32 alone.
    summary = np.concatenate([[features.mean(), features.std()], features.ravel()[:64]])
    np.testing.assert_allclose(summary, expected["dx"], atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_equal_reference(case):
    _check_case(case, "float32", 1e-5, 2e-6)


@pytest.mark.parametrize("case", ["tiny", "tiny_zsl"])
def test_logits_and_gradients_equal_reference_in_float64(case):
    _check_case(case, "float64", 1e-13, 1e-13)


def _head(num_classes=6, *, seed=0, **arguments):
    """Returns a small fresh head of 8 features in eval mode."""
    head = MLDecoder(8, num_classes, **(TINY | arguments), rngs=nnx.Rngs(seed))
    head.eval()
    return head


def _features(*shape):
    return jnp.asarray(golden.fill_input("features", shape, -1, 2))


@functools.partial(jax.jit, static_argnums=0)
def _apply(graph, state, features, key):
    rngs = None if key is None else nnx.Rngs(dropout=key)
    return nnx.merge(graph, state)(features, rngs=rngs)["logits"]


def _logits(head, features, seed=None):
    key = None if seed is None else jax.random.key(seed)
    return _apply(*nnx.split(head), features, key)


@pytest.mark.parametrize(
    ("num_classes", "num_groups", "pool"),
    [
        (6, None, (6, 16, 1)),
        (150, None, (100, 16, 2)),
        (6, 4, (4, 16, 2)),
        (6, 50, (6, 16, 1)),
        (7, 1, (1, 16, 7)),
    ],
)
def test_any_number_of_classes_and_groups_gives_one_logit_a_class(num_classes, num_groups, pool):
    head = _head(num_classes, num_groups=num_groups)
    assert head.pool.shape == pool
    assert _logits(head, _features(2, 3, 2, 8)).shape == (2, num_classes)


def test_a_class_belongs_to_the_group_of_its_index():
    head = _head(7, num_groups=3)
    features = _features(1, 2, 2, 8)
    before = _logits(head, features)
    head.pool[...] = head.pool[...].at[1].add(1.0)
    changed = np.flatnonzero(_logits(head, features)[0] != before[0])
    np.testing.assert_array_equal(changed, [3, 4, 5])


@pytest.mark.parametrize(
    ("num_classes", "arguments", "message"),
    [
        (2001, {"num_groups": 2000}, "2000 groups of 1 cannot hold 2001 classes"),
        (6, {"num_groups": 0}, "num_groups .* at least 1"),
        (6, {"embedding_size": 300}, "multiple of num_heads, got 300 for 8"),
        (6, {"word_vectors": np.zeros((5, 4), np.float32)}, r"6 classes, got shape \(5, 4\)"),
    ],
)
def test_an_impossible_head_raises(num_classes, arguments, message):
    with pytest.raises(ValueError, match=message):
        _head(num_classes, **arguments)


def test_initial_values_are_those_of_the_reference():
    head = MLDecoder(64, 20, embedding_size=48, num_groups=5, rngs=nnx.Rngs(0))
    attention = head.layer.attention
    bounds = [
        (head.embed.kernel, 64),
        (head.embed.bias, 64),
        (head.layer.expand.kernel, 48),
        (head.layer.reduce.kernel, 2048),
        # Of the stacked matrix [144, 48]: sqrt(6 / (144 + 48)).
        (attention.query.kernel, 32),
        (attention.key.kernel, 32),
        (attention.value.kernel, 32),
        (attention.out.kernel, 48),
    ]
    for values, inverse_square in bounds:
        assert 0.9 < np.abs(values[...]).max() * inverse_square**0.5 <= 1 + 1e-6
    for zeros in (attention.query, attention.key, attention.value, attention.out, head):
        np.testing.assert_array_equal(zeros.bias[...], 0)
    # The pool [5, 48, 4] has fan-in 48 * 4 and fan-out 5 * 4.
    np.testing.assert_allclose(head.pool[...].std(), (2 / (192 + 20)) ** 0.5, rtol=0.1)
    np.testing.assert_allclose(head.queries[...].std(), 1, rtol=0.2)


def test_queries_are_frozen_unless_they_are_to_be_trained():
    frozen, trained = _head(), _head(train_queries=True)
    assert "queries" not in nnx.state(frozen, nnx.Param)
    assert nnx.state(frozen, Frozen)["queries"].shape == (6, 16)
    assert nnx.state(trained, nnx.Param)["queries"].shape == (6, 16)


@pytest.mark.usefixtures("little_optimization")
def test_dropout_is_random_in_training_and_off_in_eval_mode():
    head = _head(dropout=0.5)
    training = nnx.view(head, deterministic=False)
    features = jnp.concatenate([_features(1, 2, 2, 8)] * 2)
    first, second = (_logits(training, features, seed) for seed in (1, 2))
    np.testing.assert_array_equal(first, _logits(training, features, 1))
    assert np.abs(first - second).min() > 0
    # Two equal images drop different entries.
    assert np.abs(first[0] - first[1]).min() > 0
    evaluated = _logits(head, features)
    np.testing.assert_allclose(evaluated[0], evaluated[1], atol=1e-5)


@pytest.mark.usefixtures("little_optimization")
@pytest.mark.parametrize("name", ["layer", "attention"])
def test_every_dropout_acts(name):
    head = _head(dropout=0.0)
    layer = head.layer if name == "layer" else head.layer.attention
    layer.dropout.rate = 0.5
    training = nnx.view(head, deterministic=False)
    features = _features(1, 2, 2, 8)
    noisy = _logits(training, features, 0)
    assert np.abs(noisy - _logits(head, features)).min() > 0


@pytest.mark.usefixtures("little_optimization")
def test_training_without_dropout_equals_eval_mode():
    head = _head(dropout=0.0)
    features = _features(3, 2, 2, 8)
    training = _logits(nnx.view(head, deterministic=False), features, 0)
    np.testing.assert_allclose(training, _logits(head, features), atol=1e-5)


@pytest.mark.usefixtures("little_optimization")
def test_images_do_not_see_each_other():
    head, features = _head(), _features(3, 2, 4, 8)
    alone = jnp.concatenate([_logits(head, image[None]) for image in features])
    np.testing.assert_allclose(_logits(head, features), alone, atol=1e-5)


@pytest.mark.usefixtures("little_optimization")
def test_the_order_of_places_does_not_matter():
    head, features = _head(), _features(1, 3, 4, 8)
    turned = _logits(head, features[:, ::-1].transpose(0, 2, 1, 3))
    np.testing.assert_allclose(turned, _logits(head, features), atol=1e-5)


@pytest.mark.slow
def test_jit_equals_eager():
    head, features = _head(), _features(2, 2, 2, 8)
    np.testing.assert_allclose(_logits(head, features), head(features)["logits"], atol=1e-5)


@pytest.mark.usefixtures("little_optimization")
def test_bfloat16_gives_float32_logits_near_those_of_float32():
    features = _features(2, 3, 3, 8)
    half = _logits(_head(dtype=jnp.bfloat16), features.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, _logits(_head(), features), atol=0.1)


WORDS = golden.fill_input("words", (6, 5), -1, 1)


@pytest.mark.usefixtures("little_optimization")
def test_other_word_vectors_score_other_classes_with_the_same_parameters():
    head, features = _head(word_vectors=WORDS), _features(2, 2, 2, 8)
    unseen = WORDS[[4, 1]]
    swapped = head.for_classes(_classes(unseen))
    expected = _logits(head, features)
    np.testing.assert_allclose(_logits(swapped, features), expected[:, [4, 1]], atol=1e-5)
    assert swapped.pool is head.pool
    assert swapped.for_classes(_classes(None, 2)) is swapped
    np.testing.assert_array_equal(head.word_vectors[...], WORDS)


def test_word_vectors_are_frozen_and_their_projection_is_trained():
    head = _head(word_vectors=WORDS)
    assert set(nnx.state(head, Frozen)) == {"word_vectors"}
    assert nnx.state(head, nnx.Param)["word_projection"]["kernel"].shape == (5, 16)
    assert head.pool.shape == (1, 16, 1)


def test_word_vectors_may_be_a_file(tmp_path):
    np.save(tmp_path / "words.npy", WORDS)
    head = _head(word_vectors=str(tmp_path / "words.npy"))
    np.testing.assert_array_equal(head.word_vectors[...], WORDS)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_saved_zero_shot_network_needs_no_file_of_word_vectors(tmp_path, as_file):
    path = tmp_path / "words.npy"
    np.save(path, WORDS)
    model = create_model(
        "tresnet_m",
        "ml_decoder",
        num_classes=len(WORDS),
        head_kwargs=TINY | {"word_vectors": str(path) if as_file else WORDS},
        backbone_kwargs={"layers": (0, 0, 0, 0), "width": 8},
        rngs=nnx.Rngs(0),
    )
    save_model(tmp_path / "model", model)
    path.unlink()
    loaded = load_model(tmp_path / "model")
    stored = {"word_vectors": None, "word_vector_size": WORDS.shape[1]}
    assert loaded.spec.head.kwargs == TINY | stored
    features = _features(2, 2, 2, model.backbone.num_features)
    logits = _logits(loaded.head, features)
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits, _logits(model.head, features))


def test_word_vectors_may_come_later():
    head, features = _head(word_vector_size=5), _features(1, 2, 2, 8)
    assert np.isnan(_logits(head, features)).all()
    later = _logits(head.for_classes(_classes(WORDS)), features)
    expected = _logits(_head(word_vectors=WORDS), features)
    np.testing.assert_array_equal(later, expected)


def test_word_vectors_of_another_width_raise():
    with pytest.raises(ValueError, match=r"\[6, 5\], got \(6, 4\)"):
        _head(word_vectors=WORDS).for_classes(_classes(WORDS[:, :4]))


def test_classes_without_vectors_change_nothing_where_the_number_fits():
    for head in (_head(), _head(word_vectors=WORDS)):
        assert head.for_classes(_classes(None, 6)) is head


def test_other_classes_without_vectors_raise():
    with pytest.raises(ValueError, match=r"expected \[4, 5\], got None"):
        _head(word_vectors=WORDS).for_classes(_classes(None, 4))


def test_word_vectors_for_a_head_without_zero_shot_mode_raise():
    with pytest.raises(ValueError, match="made without word_vectors"):
        _head().for_classes(_classes(WORDS))


def test_word_vectors_may_be_found_by_the_names_of_the_classes(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("cat 1 2 3 4 5\ndog 5 4 3 2 1\n")
    head = _head(2, word_vectors=str(path))
    assert np.isnan(head.word_vectors[...]).all()
    classes = Classes(names=("dog", "cat dog", "cat"))
    found = head.for_classes(classes).word_vectors[...]
    np.testing.assert_array_equal(found, [[5, 4, 3, 2, 1], [3, 3, 3, 3, 3], [1, 2, 3, 4, 5]])
    with pytest.raises(ValueError, match="no word vector for 1 classes, such as 'cow'"):
        head.for_classes(Classes(names=("dog", "cow")))
