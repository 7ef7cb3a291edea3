"""Files that are damaged, hold code, or are something else; what training scripts save is read."""

import argparse
import collections
import io
import os
import pathlib
import pickle
import socket
import sys
import types
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from converters.files.read_array import read_array
from converters.files.read_torch import read_torch
from tests import golden

ASL_ZIP = golden.FOLDER / "ckpt_asl_zip.pth"
LEGACY = golden.FOLDER / "ckpt_in21k_legacy.pth"


class _Code:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _weights():
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def _check_weights(file):
    assert list(file.tensors) == ["a.weight", "a.bias"]
    np.testing.assert_array_equal(file.tensors["a.weight"], np.arange(6.0).reshape(2, 3))


def test_safetensors_are_read(tmp_path):
    save_file(_weights(), tmp_path / "x.safetensors")
    file = read_torch(tmp_path / "x.safetensors")
    assert sorted(file.tensors) == ["a.bias", "a.weight"]
    assert file.container == "safetensors file, bare state dict"


@pytest.mark.parametrize("legacy", [False, True])
def test_namespaces_and_numpy_values_of_training_scripts_are_allowed(tmp_path, legacy):
    content = {
        "opt": argparse.Namespace(lr=0.1, name="x"),
        "best": np.float64(81.8),
        "history": np.arange(3.0),
        "model": _weights(),
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    _check_weights(read_torch(tmp_path / "x.pth"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "extra",
    [
        argparse.Namespace(data=pathlib.Path("data/coco"), lr=0.1),
        argparse.Namespace(data=pathlib.PureWindowsPath(r"C:\data")),
        collections.defaultdict(list, {"loss": [0.5, 0.25]}),
        collections.defaultdict(dict, {"val": {"mAP": 81.8}}),
        collections.defaultdict(float),
    ],
    ids=["path", "windows path", "lists", "dicts", "empty"],
)
def test_paths_and_histories_of_training_scripts_are_allowed(tmp_path, extra, legacy):
    content = {"extra": extra, "state_dict": _weights()}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    _check_weights(read_torch(tmp_path / "x.pth"))


def test_a_history_by_default_dict_can_hold_the_weights(tmp_path):
    torch.save(collections.defaultdict(dict, {"model": _weights()}), tmp_path / "x.pth")
    _check_weights(read_torch(tmp_path / "x.pth"))


def test_the_paths_of_a_newer_python_are_allowed(tmp_path, monkeypatch):
    # Python 3.13 saves them under this module.
    kind = type("PosixPath", (), {"__module__": "pathlib._local"})
    kind.__reduce__ = lambda self: (kind, ("data", "coco"))
    monkeypatch.setitem(
        sys.modules, "pathlib._local", types.SimpleNamespace(PosixPath=kind, __name__="_local")
    )
    monkeypatch.setattr(pathlib, "_local", sys.modules["pathlib._local"], raising=False)
    torch.save({"opt": kind(), "model": _weights()}, tmp_path / "x.pth")
    monkeypatch.undo()
    _check_weights(read_torch(tmp_path / "x.pth"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda code: argparse.Namespace(data=code),
        lambda code: collections.defaultdict(list, {"loss": [code]}),
        lambda code: _Code(collections.defaultdict, code),
        lambda code: _Code(pathlib.PurePosixPath, code),
    ],
    ids=["namespace", "history", "factory", "path"],
)
def test_code_inside_what_is_allowed_never_runs(tmp_path, wrap, legacy):
    canary = tmp_path / "ran"
    content = {"model": _weights(), "extra": wrap(_Code(os.system, f"touch {canary}"))}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"x\.pth: refused.*'posix\.system'"):
        read_torch(tmp_path / "x.pth")
    assert not canary.exists()


def test_a_default_factory_that_is_no_plain_type_is_refused(tmp_path):
    # It would run at the first missing key.
    torch.save({"extra": collections.defaultdict(os.getcwd)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"refused.*'posix\.getcwd'"):
        read_torch(tmp_path / "x.pth")


def test_an_array_of_objects_in_a_file_is_refused_by_name(tmp_path):
    content = {"model": _weights(), "classes": np.array(["a", "b"], object)}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: refused.*ObjectDType'"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [4, 5])
def test_a_newer_pickle_protocol_is_refused_by_its_number(tmp_path, protocol, legacy):
    path = tmp_path / "x.pth"
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": not legacy}
    torch.save({"model": _weights()}, path, **options)
    with pytest.raises(ValueError, match=rf"x\.pth: was saved with pickle protocol {protocol}"):
        read_torch(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_protocol_3_is_read(tmp_path, legacy):
    path = tmp_path / "x.pth"
    options = {"pickle_protocol": 3, "_use_new_zipfile_serialization": not legacy}
    torch.save({"model": _weights()}, path, **options)
    _check_weights(read_torch(path))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_under_a_newer_pickle_protocol_never_runs(tmp_path, legacy):
    canary = tmp_path / "ran"
    options = {"pickle_protocol": 4, "_use_new_zipfile_serialization": not legacy}
    torch.save({"extra": _Code(os.system, f"touch {canary}")}, tmp_path / "x.pth", **options)
    with pytest.raises(ValueError, match="pickle protocol 4"):
        read_torch(tmp_path / "x.pth")
    assert not canary.exists()


def test_a_torchscript_archive_is_refused_with_what_to_save_instead(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Newer torch deprecates it; the files remain.
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: is a TorchScript archive.*state_dict\(\)"):
        read_torch(tmp_path / "x.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_by_name_and_never_runs(tmp_path, legacy):
    canary = tmp_path / "ran"
    content = {"model": _weights(), "extra": _Code(os.system, f"touch {canary}")}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"x\.pth: refused.*'posix\.system'"):
        read_torch(tmp_path / "x.pth")
    assert not canary.exists()


def test_code_behind_an_allowed_module_is_refused_too(tmp_path):
    canary = tmp_path / "ran"
    torch.save({"model": _Code(np.save, str(canary), [1])}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"refused.*'numpy\.save'"):
        read_torch(tmp_path / "x.pth")
    assert not list(tmp_path.glob("ran*"))


def test_a_plain_pickle_is_not_even_opened(tmp_path):
    canary = tmp_path / "ran"
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"w": _Code(os.system, f"touch {canary}")}))
    with pytest.raises(ValueError, match="a Python pickle that torch.save did not write"):
        read_torch(tmp_path / "x.pkl")
    assert not canary.exists()


def test_a_whole_pickled_module_says_what_to_save_instead(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict\(\)"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("path", [ASL_ZIP, LEGACY])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.99])
def test_a_cut_off_file_is_named(tmp_path, path, share):
    content = path.read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: max(int(len(content) * share), 20)])
    with pytest.raises(ValueError, match=r"cut\.pth: .*cut off or damaged.*download it again"):
        read_torch(tmp_path / "cut.pth")


def test_a_cut_off_safetensors_file_is_named(tmp_path):
    save_file(_weights(), tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"cut\.safetensors: .*cut off or damaged"):
        read_torch(tmp_path / "cut.safetensors")


def test_a_flipped_bit_in_a_zip_file_is_found(tmp_path):
    content = bytearray(ASL_ZIP.read_bytes())
    content[60000] ^= 4
    (tmp_path / "rotten.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"rotten\.pth: the file is damaged \(bad checksum"):
        read_torch(tmp_path / "rotten.pth")


def test_a_zip_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(_weights(), tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    _check_weights(read_torch(tmp_path / "x.pth"))


def _zip_of_text():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG image"),
        (b"just some notes\n", "text that starts with 'just some notes"),
        (b"\n<!DOCTYPE html><html>not found", "an HTML page"),
        (b"<HTML><body>sign in", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00", "gzip-compressed: unpack it first"),
        (_zip_of_text(), "zip file but no torch checkpoint; it holds readme.txt"),
        (b"\x00\x01\x02\x03\xfe\xff", "an unknown format"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_described(tmp_path, content, message):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights\.pth: .*{message}"):
        read_torch(tmp_path / "weights.pth")


def test_absent_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth: there is no such file"):
        read_torch(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="is a folder; give the torch file itself"):
        read_torch(tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "link to a pipe"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, kind):
    path = tmp_path / "x.pth"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "device":
        path = pathlib.Path("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    expected = {"fifo": "pipe", "link to a pipe": "pipe"}.get(kind, kind)
    for read in (read_torch, read_array):
        with pytest.raises(ValueError, match=f"{path}: is a {expected}"):
            read(path)


def _cyclic(kind):
    inner = {"epoch": 1}
    middle = inner if kind == "mapping" else [inner] if kind == "list" else [(inner,)]
    inner["again"] = middle
    return inner


@pytest.mark.parametrize("kind", ["mapping", "list", "tuple"])
@pytest.mark.parametrize("key", ["model", "callbacks"])
def test_a_container_that_contains_itself_is_refused(tmp_path, kind, key):
    torch.save({"state_dict": _weights(), key: _cyclic(kind)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: refused.*contains itself"):
        read_torch(tmp_path / "x.pth")


def test_a_container_that_is_its_own_model_is_refused():
    content = {}
    content["model"] = content
    with pytest.raises(ValueError, match="the given dict: refused.*dict that contains itself"):
        read_torch(content)


def test_containers_nested_without_end_are_refused():
    content = _weights()
    for _ in range(5000):
        content = {"model": content}
    with pytest.raises(ValueError, match="nested in more than 100 levels"):
        read_torch(content)


def test_a_container_in_two_places_is_read_in_no_time():
    history = []
    for _ in range(60):
        history = [history, history]
    _check_weights(read_torch({"history": history, "model": _weights()}))


@pytest.mark.parametrize("path", [ASL_ZIP, LEGACY])
def test_damage_anywhere_is_a_clear_error_or_harmless(tmp_path, path):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    errors = 0
    for _ in range(40):
        damaged = bytearray(content)
        for position in rng.integers(0, 3000, 3):  # Names and structure, rather than numbers.
            damaged[position] ^= 1 << rng.integers(8)
        (tmp_path / "x.pth").write_bytes(damaged)
        try:
            read_torch(tmp_path / "x.pth")
        except ValueError as error:
            assert "x.pth: " in str(error)
            errors += 1
    assert errors > 20
