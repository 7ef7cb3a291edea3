import inspect
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from converters.files.read_torch import read_torch
from tests import golden

ASL_ZIP = golden.FOLDER / "ckpt_asl_zip.pth"
LEGACY = golden.FOLDER / "ckpt_in21k_legacy.pth"


def _weights():
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def _check_weights(file):
    assert list(file.tensors) == ["a.weight", "a.bias"]
    np.testing.assert_array_equal(file.tensors["a.weight"], np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("case", golden.names("ckpt"))
def test_golden_files_hold_the_recipe_weights(case):
    row = golden.cases("ckpt")[case]
    file = read_torch(golden.FOLDER / row["extra"]["checkpoint"])
    expected = golden.state_dict("ckpt", case)
    if not row["extra"]["num_batches_tracked"]:
        expected = {k: v for k, v in expected.items() if "num_batches_tracked" not in k}
    assert list(file.tensors) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(file.tensors[name], array)


def test_zip_container_tells_its_entries_and_class_names():
    file = read_torch(ASL_ZIP)
    assert file.class_names == ("c0", "c1", "c2", "c3")
    assert file.container == (
        "zip torch file, {'model', 'num_classes', 'idx_to_class'}, weights under 'model'"
    )


def test_legacy_container_and_module_prefix_are_told():
    file = read_torch(LEGACY)
    assert file.container.startswith("legacy torch file, {'state_dict'}")
    assert "`module.` stripped" in file.container
    assert file.class_names is None


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", "state_dict_ema"])
def test_known_entries_are_found(tmp_path, wrapper):
    torch.save(
        {"epoch": 3, "optimizer": {"state": {}}, wrapper: _weights()}, tmp_path / "x.pth.tar"
    )
    _check_weights(read_torch(tmp_path / "x.pth.tar"))


@pytest.mark.parametrize(
    "levels",
    [
        ("model", "state_dict"),
        ("checkpoint", "state_dict"),
        ("checkpoint", "model", "state_dict"),
        ("state_dict", "net", "ema"),
        ("my_network",),
    ],
    ids=".".join,
)
def test_nested_containers_and_unknown_single_entries_are_opened(levels):
    content = _weights()
    for level in reversed(levels):
        content = {level: content, "epoch": 1}
    _check_weights(read_torch(content))


def test_a_known_entry_without_tensors_is_passed_over():
    _check_weights(read_torch({"model": "tresnet_m", "state_dict": _weights()}))


def test_key_picks_the_entry():
    averaged = {name: 2 * value for name, value in _weights().items()}
    source = {"state_dict": _weights(), "state_dict_ema": averaged}
    assert "not read: 'state_dict_ema'" in read_torch(source).container
    file = read_torch(source, key="state_dict_ema")
    np.testing.assert_array_equal(file.tensors["a.bias"], [2, 2])


def test_a_key_with_dots_picks_an_entry_in_an_entry():
    source = {"model": {"a.bias": torch.ones(2)}, "ema": {"module": _weights(), "updates": 5}}
    _check_weights(read_torch(source, key="ema.module"))


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema", "swa_model", "EMA"])
@pytest.mark.parametrize("plain", ["model", "state_dict", "my_network"])
def test_averaged_weights_beside_the_plain_ones_are_told_with_their_key(plain, averaged):
    copy = {f"module.{name}": 2 * value for name, value in _weights().items()}
    source = {averaged: copy | {"n_averaged": torch.tensor(3)}, plain: _weights()}
    file = read_torch(source)
    _check_weights(file)
    assert file.alternatives == (f"averaged weights under {averaged!r} (--key {averaged})",)
    assert repr(averaged) in file.container


def test_averaged_weights_deep_in_the_container_are_told_with_their_key():
    source = {"state_dict": _weights(), "callbacks": {"EMA": {"weights": _weights()}}}
    (text,) = read_torch(source).alternatives
    assert text == "averaged weights under 'callbacks.EMA.weights' (--key callbacks.EMA.weights)"
    _check_weights(read_torch(source, key="callbacks.EMA.weights"))


def test_the_state_of_an_optimizer_is_no_alternative():
    optimizer = {"state": {0: {"step": torch.ones(1)}, "a.bias": {"exp_avg": torch.ones(2)}}}
    assert read_torch({"model": _weights(), "optimizer": optimizer}).alternatives == ()


def test_an_absent_key_lists_what_is_there():
    with pytest.raises(ValueError, match=r"no weights under 'ema'; it holds \{'model', 'epoch'\}"):
        read_torch({"model": _weights(), "epoch": 1}, key="ema")


def test_several_unknown_entries_ask_for_the_key():
    with pytest.raises(ValueError, match=r"choose one by key: \['E', 'A'\]"):
        read_torch({"E": _weights(), "A": _weights()})


@pytest.mark.parametrize(
    "template", ["module.{}", "encoder.module.{}", "_orig_mod.module.{}", "a.module.module.{}"]
)
def test_wrapper_levels_are_stripped_anywhere(template):
    source = {template.format(name): value for name, value in _weights().items()}
    expected = {".".join(p for p in n.split(".") if "mod" not in p) for n in source}
    assert set(read_torch(source).tensors) == expected


@pytest.mark.parametrize("prefix", ["student", "student.", "module.student", "a.student"])
def test_a_prefix_picks_the_weights_under_it(prefix):
    start = prefix if prefix.startswith("a.") else "module.student"
    source = {f"{start}.{k}": v for k, v in _weights().items()} | {"teacher.w": torch.ones(1)}
    file = read_torch(source, prefix=prefix)
    _check_weights(file)
    assert file.left_out == {"teacher.w": f"outside `{prefix.rstrip('.')}.`, so not the network's"}


def test_a_prefix_that_no_name_has_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"prefix 'net\.'; they start with \{'a'\}"):
        read_torch(_weights(), prefix="net")


@pytest.mark.parametrize("name", ["n_averaged", "model.n_averaged", "model_ema.module.n_averaged"])
def test_the_counter_of_an_averaged_model_is_left_out_with_a_reason(name):
    file = read_torch(_weights() | {name: torch.tensor(7)})
    _check_weights(file)
    assert list(file.left_out) == [name]
    assert "AveragedModel" in file.left_out[name]


def test_names_that_only_contain_the_word_module_stay():
    assert list(read_torch({"submodule.w": torch.ones(1)}).tensors) == ["submodule.w"]


def test_a_name_with_and_without_wrapper_is_refused():
    with pytest.raises(ValueError, match="'w' is there twice"):
        read_torch({"w": torch.ones(1), "module.w": torch.ones(1)})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"idx_to_class": {1: "b", 0: "a"}}, ("a", "b")),
        ({"idx_to_class": {"1": "b", "10": "k", "2": "c", "0": "a"}}, ("a", "b", "c", "k")),
        ({"idx_to_class": {1.0: "b", 0.0: "a"}}, ("a", "b")),
        ({"idx_to_class": {np.int64(1): "b", np.int64(0): "a"}}, ("a", "b")),
        ({"idx_to_class": {torch.tensor(1): "b", torch.tensor(0): "a"}}, ("a", "b")),
        ({"idx_to_class": {"1": "0", "0": "1"}}, ("1", "0")),
        ({"class_to_idx": {"1": "0", "0": "1"}}, ("1", "0")),
        ({"class_to_idx": {"y": "10", "x": "9"}}, ("x", "y")),
        ({"classes": {2: "b", 1: "a"}}, ("a", "b")),
        ({"classes": {"n02": "tench", "n01": "gold"}}, ("tench", "gold")),
        ({"idx_to_class": {"02": "c", "00": "a", "01": "b"}}, ("a", "b", "c")),
        ({"idx_to_class": {"class_1": "b", "class_0": "a"}}, ("a", "b")),
        ({"class_names": ["x", "y"]}, ("x", "y")),
        ({"classes": ("x", "y")}, ("x", "y")),
        ({"class_to_idx": {"y": 1, "x": 0}}, ("x", "y")),
        ({"classes_map": {"y": 1, "x": 0}}, ("x", "y")),
        ({"classes": {"y": 1, "x": 0}}, ("x", "y")),
        ({"idx_to_class": {"y": np.int64(1), "x": np.int64(0)}}, ("x", "y")),
        ({"classes": np.array(["x", "y"])}, ("x", "y")),
        ({"class_names": np.array(["x", "y"], object)}, ("x", "y")),
        ({"classes": np.array(80)}, None),
        ({"classes": {"y": [1], "x": [0]}}, None),
        ({"idx_to_class": {}}, None),
    ],
)
def test_class_names_in_their_spellings(entry, expected):
    assert read_torch({"model": _weights(), **entry}).class_names == expected


@pytest.mark.parametrize(
    "entry",
    [{"idx_to_class": {0: "a", "0": "b"}}, {"class_to_idx": {"a": 0, "b": 0}}],
    ids=["text and number", "twice"],
)
def test_two_classes_of_one_index_are_a_problem_that_names_both(entry):
    file = read_torch({"model": _weights(), **entry})
    assert file.class_names is None
    assert "'a' and 'b' have the same index 0" in file.names_problem


@pytest.mark.parametrize("keys", [("0", "1", "x"), ("-1", "0"), (True, 0), (0, 1.5)])
def test_indices_of_which_some_are_none_are_a_problem(keys):
    entry = {key: f"name {number}" for number, key in enumerate(keys)}
    file = read_torch({"model": _weights(), "idx_to_class": entry})
    assert file.class_names is None
    assert "idx_to_class: some of its indices are whole numbers" in file.names_problem


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_half_precision_becomes_float32(tmp_path, dtype, suffix):
    path = tmp_path / f"half.{suffix}"
    weights = {"w": torch.tensor([1.5, -2.25, 1e-3], dtype=dtype)}
    (save_file if suffix == "safetensors" else torch.save)(weights, path)
    array = read_torch(path).tensors["w"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, weights["w"].float().numpy())


def test_jax_arrays_and_bfloat16_numpy_are_taken():
    weights = {"a": jnp.ones(2), "b": np.asarray(jnp.full(2, 0.5, jnp.bfloat16))}
    tensors = read_torch(weights).tensors
    assert tensors["a"].dtype == tensors["b"].dtype == np.float32
    np.testing.assert_array_equal(tensors["b"], [0.5, 0.5])


def test_an_array_of_class_names_in_a_file_is_read(tmp_path):
    torch.save({"model": _weights(), "classes": np.array(["a", "b"])}, tmp_path / "x.pth")
    assert read_torch(tmp_path / "x.pth").class_names == ("a", "b")


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, {"model": {"name": "x"}}])
def test_a_container_without_tensors_is_refused(content):
    with pytest.raises(ValueError, match="holds no tensors"):
        read_torch(content)


def test_a_list_is_no_state_dict(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds a list, expected a state dict"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("source", [torch.nn.Linear(2, 2), None, [torch.ones(1)]])
def test_a_source_that_is_neither_path_nor_dict_is_refused(source):
    with pytest.raises(ValueError, match=rf"got a {type(source).__name__}; .*state_dict\(\)"):
        # The tests' type checker would refuse it first.
        inspect.unwrap(read_torch)(source)


def test_without_torch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'mljax\[torch\]'"):
        read_torch(ASL_ZIP)
