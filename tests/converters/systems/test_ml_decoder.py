"""ML-Decoder checkpoints: whole networks against the published code, names, both directions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from converters import from_torch, to_numpy
from converters.convert import main
from converters.systems.ml_decoder import ml_decoder_table
from converters.verify import verify
from mljax.checkpoints.checkpoint import load_model
from mljax.config import Part
from mljax.data.records import Classes
from mljax.heads.ml_decoder import Frozen, MLDecoder
from mljax.losses.asymmetric import asymmetric_loss
from mljax.models.classifier import for_classes
from tests import golden
from tests.converters.shapes import detected, golden_shapes
from tests.converters.small_resnet import small

LAYER_NAMES = [
    *(f"norm{n}.{kind}" for n in (1, 2, 3) for kind in ("weight", "bias")),
    *(f"multihead_attn.in_proj_{kind}" for kind in ("weight", "bias")),
    *(f"multihead_attn.out_proj.{kind}" for kind in ("weight", "bias")),
    *(f"linear{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")),
]
OUTER_NAMES = [
    "embed_standart.weight",
    "embed_standart.bias",
    "query_embed.weight",
    "duplicate_pooling",
    "duplicate_pooling_bias",
]
# Of seven classes, for the zero-shot case.
WORDS = golden.fill_input("words", (7, 300), -1, 1)


@functools.cache
def _mini():
    return from_torch(golden.state_dict("mldecoder_model", "mld_mini"))


@functools.partial(jax.jit, static_argnums=0)
def _apply(graph, state, images):
    return nnx.merge(graph, state)(images)["logits"]


def _logits(model, group, case):
    images = golden.fill_input(*golden.cases(group)[case]["inputs"]["x"]["fill"])
    return _apply(*nnx.split(model), images.transpose(0, 2, 3, 1))


def test_a_small_network_has_the_logits_of_the_reference():
    expected = golden.arrays("mldecoder_model", "mld_mini")["logits"]
    np.testing.assert_allclose(_logits(_mini(), "mldecoder_model", "mld_mini"), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mld_m_96", "mld_l_64"])
def test_the_published_networks_have_the_logits_of_the_reference(case):
    model = from_torch(golden.state_dict("mldecoder_model", case))
    expected = golden.arrays("mldecoder_model", case)["logits"]
    np.testing.assert_allclose(_logits(model, "mldecoder_model", case), expected, atol=1e-4)


def test_a_checkpoint_file_is_imported():
    model = from_torch(golden.FOLDER / "ckpt_mldecoder.pth")
    expected = golden.arrays("ckpt", "mldecoder")["logits"]
    np.testing.assert_allclose(_logits(model, "ckpt", "mldecoder"), expected, atol=1e-4)


@pytest.mark.slow
def test_a_training_step_has_the_gradients_of_the_reference():
    row = golden.cases("tresnet_train")["mini_mldecoder"]
    expected = golden.arrays("tresnet_train", "mini_mldecoder")
    model = from_torch(golden.state_dict("tresnet_train", "mini_mldecoder"))
    for dropout in (model.head.layer.dropout, model.head.layer.attention.dropout):
        dropout.rate = 0.0  # As in the reference run.
    model.train()
    images = golden.fill_input(*row["inputs"]["x"]["fill"])
    labels = golden.fill_input(row["inputs"]["x"]["fill"][0] + ".y", expected["logits"].shape)
    with jax.enable_x64(True):
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        params, rest = jax.tree.map(lambda x: x.astype("float64"), (params, rest))

        def loss(params):
            network = nnx.merge(graph, params, rest, copy=True)
            logits = network(jnp.asarray(images.transpose(0, 2, 3, 1), "float64"))["logits"]
            return asymmetric_loss(logits, jnp.asarray(labels < 0.15, "float64")).sum(), logits

        (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        tensors = to_numpy(nnx.merge(graph, gradients, rest))
    np.testing.assert_allclose(value, expected["loss_f64"], rtol=1e-12)
    np.testing.assert_allclose(logits, expected["logits_f64"], atol=1e-11)
    norms = [np.linalg.norm(tensors[name]) for name in row["extra"]["grad_names"]]
    np.testing.assert_allclose(norms, expected["grad_norms_f64"], rtol=1e-10)


def _abstract_head(**arguments):
    return nnx.eval_shape(lambda: MLDecoder(8, 6, embedding_size=16, **arguments, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("naming", "source", "outer"),
    [
        ("original", "head", "head.decoder"),
        ("original", "fc", "fc.decoder"),
        ("timm", "head", "head"),
        ("timm", "classifier", "classifier"),
    ],
)
def test_the_table_has_the_names_of_each_library(naming, source, outer):
    table = ml_decoder_table(_abstract_head(), naming, source=source)
    names = [name for row in table.rows for name in row.sources]
    expected = [f"{outer}.{name}" for name in OUTER_NAMES]
    expected += [f"{source}.decoder.layers.0.{name}" for name in LAYER_NAMES]
    assert sorted(names) == sorted(expected)


def test_export_is_the_inverse_bit_for_bit():
    tensors = golden.state_dict("mldecoder_model", "mld_mini")
    exported = to_numpy(_mini())
    kept = {name for name in tensors if not name.endswith("num_batches_tracked")}
    assert exported.keys() == kept
    for name, array in exported.items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)


def test_the_names_of_timm_hold_the_same_network():
    tensors = to_numpy(_mini(), naming="timm")
    assert "head.query_embed.weight" in tensors
    states = [nnx.state(model.head) for model in (_mini(), from_torch(tensors))]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), *states)


@pytest.mark.parametrize("name", [f"head.decoder.{name}" for name in OUTER_NAMES[:3]])
def test_a_missing_tensor_raises(name):
    tensors = golden.state_dict("mldecoder_model", "mld_mini")
    del tensors[name]
    with pytest.raises(ValueError, match=f"missing: {name}"):
        from_torch(tensors)


def test_the_frozen_queries_are_no_parameters_of_an_imported_network():
    head = nnx.state(_mini().head, Frozen)
    expected = golden.state_dict("mldecoder_model", "mld_mini")["head.decoder.query_embed.weight"]
    np.testing.assert_array_equal(head["queries"][...], expected)


@functools.cache
def _zero_shot_tensors():
    """Returns the backbone of the small network with the head of the zero-shot case."""
    tensors = golden.state_dict("mldecoder_model", "mld_mini")
    body = {name: array for name, array in tensors.items() if name.startswith("body.")}
    head = golden.state_dict("mldecoder", "tiny_zsl")
    size, width = 16, 512
    embedding = golden.fill("head.decoder.embed_standart.weight", (size, width), "weight")
    return body | head | {"head.decoder.embed_standart.weight": embedding}


@pytest.mark.usefixtures("little_optimization")
def test_a_zero_shot_checkpoint_takes_word_vectors():
    model = from_torch(_zero_shot_tensors(), word_vectors=WORDS)
    logits = _logits(model, "mldecoder_model", "mld_mini")
    assert logits.shape == (2, 7)
    model = for_classes(model, Classes(names=("a", "b", "c"), vectors=WORDS[:3]))
    swapped = _logits(model, "mldecoder_model", "mld_mini")
    np.testing.assert_allclose(swapped, logits[:, :3], atol=1e-4)


@pytest.mark.parametrize("words", [WORDS, WORDS.T], ids=["k w", "w k"])
def test_word_vectors_are_taken_in_both_orientations(words):
    model = from_torch(_zero_shot_tensors(), word_vectors=words)
    assert model.spec.num_classes == 7
    np.testing.assert_array_equal(model.head.word_vectors[...], WORDS)


@pytest.mark.parametrize("words", [None, WORDS[:, :299], WORDS[0]], ids=["none", "width", "1-D"])
def test_word_vectors_of_another_shape_are_refused(words):
    with pytest.raises(ValueError, match=r"needs word_vectors \[classes, 300\], got"):
        from_torch(_zero_shot_tensors(), word_vectors=words)


def test_word_vectors_for_a_network_that_reads_none_are_refused():
    tensors = golden.state_dict("mldecoder_model", "mld_mini")
    with pytest.raises(ValueError, match="takes no word_vectors"):
        from_torch(tensors, word_vectors=WORDS)


@pytest.fixture(scope="module")
def zero_shot_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("zero_shot") / "zsl.pth"
    torch.save({k: torch.tensor(v) for k, v in _zero_shot_tensors().items()}, path)
    return path


def _write_npy(path):
    np.save(path, WORDS)


def _write_release(path):
    # The release's file: a half-precision tensor with the words as its columns.
    torch.save(torch.tensor(WORDS.T).half(), path)


def _write_parameter(path):
    torch.save(torch.nn.Parameter(torch.tensor(WORDS)), path)


@pytest.mark.parametrize(
    ("name", "write", "tolerance"),
    [
        ("words.npy", _write_npy, 0),
        ("wordvec.pth", _write_release, 1e-3),
        ("wordvec.pt", _write_parameter, 0),
    ],
)
def test_the_command_reads_word_vectors(tmp_path, zero_shot_file, name, write, tolerance):
    write(tmp_path / name)
    options = ["--argument", f"word_vectors={tmp_path / name}"]
    assert main([str(zero_shot_file), str(tmp_path / "out"), *options]) == 0
    found = load_model(tmp_path / "out").head.word_vectors[...]
    np.testing.assert_allclose(found, WORDS, atol=tolerance, rtol=0)


def _npz(path):
    with path.open("wb") as file:
        np.savez(file, words=WORDS)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        (
            "words.npy",
            lambda path: path.write_bytes(b""),
            "words.npy: not an array",
        ),
        ("words.npz", _npz, "words.npz: is a zip file but no torch checkpoint; it holds words.npy"),
        ("words.npy", _npz, "words.npy: not an array"),
        ("words.pth", lambda path: torch.save({"w": torch.ones(1)}, path), "holds a dict"),
        ("words.npy", lambda path: None, "words.npy"),
        ("words.pth", lambda path: None, "words.pth: there is no such file"),
    ],
    ids=["empty npy", "npz", "npz named npy", "dict", "no npy", "no pth"],
)
def test_a_bad_file_of_word_vectors_is_an_error(
    tmp_path, zero_shot_file, capsys, name, write, message
):
    write(tmp_path / name)
    options = ["--argument", f"word_vectors={tmp_path / name}"]
    assert main([str(zero_shot_file), str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_a_zero_shot_checkpoint_is_exported_without_word_vectors():
    tensors = _zero_shot_tensors()
    exported = to_numpy(from_torch(tensors, word_vectors=WORDS))
    for name in golden.state_dict("mldecoder", "tiny_zsl"):
        np.testing.assert_array_equal(exported[name], tensors[name], err_msg=name)
    assert not any("word_vectors" in name for name in exported)


def test_the_ml_decoder_head_is_told_with_its_groups_and_classes():
    detection = detected(golden_shapes("ckpt", "mldecoder"))
    assert detection.head == Part(name="ml_decoder", kwargs={"num_groups": 3, "embedding_size": 8})
    assert detection.num_classes == 7


def test_the_original_head_sits_on_a_backbone_of_timm():
    timm, original = to_numpy(_mini(), naming="timm"), to_numpy(_mini())
    mixed = {k: v for k, v in timm.items() if k.startswith("body.")}
    mixed |= {k: v for k, v in original.items() if k.startswith("head.")}
    assert detected(mixed).naming == "timm/original"
    states = [nnx.state(from_torch(tensors)) for tensors in (timm, mixed)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_slopes_are_no_argument_of_a_resnet_under_ml_decoder():
    with pytest.raises(ValueError, match="takes no argument stem_slope"):
        from_torch(to_numpy(small("ml_decoder")), stem_slope=0.01)


def test_word_vectors_may_be_a_path(tmp_path):
    np.save(tmp_path / "words.npy", WORDS)
    model = from_torch(_zero_shot_tensors(), word_vectors=tmp_path / "words.npy")
    np.testing.assert_array_equal(model.head.word_vectors[...], WORDS)


@pytest.mark.usefixtures("little_optimization")
def test_a_zero_shot_import_equals_the_reference():
    tensors = _zero_shot_tensors()
    model = from_torch(tensors, word_vectors=WORDS)
    found = verify(model, tensors, image_size=64)
    assert found is not None and found.passed
    assert found.largest > 1e-3
