from functools import cache, partial

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from converters import from_torch, to_torch
from converters.models import find_table
from converters.systems.tresnet import timm_unit
from mljax.models.classifier import ModelSpec, abstract_model
from tests import golden
from tests.converters.shapes import detected

MINI = ("mini_64", "mini_v2", "mini_bneck12", "mini_bottleneck_head")


@cache
def _abstract(group, case):
    """Returns the network of a case without arrays."""
    if group == "tresnet_names":
        names = {old: shape for old, _, shape in golden.cases(group)[case]["extra"]["names"]}
    else:
        names = {k: shape for k, (shape, _) in golden.cases(group)[case]["params"].items()}
    found = detected({k: np.broadcast_to(np.float32(0), shape) for k, shape in names.items()})
    spec = ModelSpec(backbone=found.backbone, head=found.head, num_classes=found.num_classes)
    return abstract_model(spec)


def _without_counters(tensors):
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}


def _to_timm(tensors, case):
    """Returns an original state dict as timm's conversion of it, by the golden pairs of names."""
    pairs = {old: new for old, new, _ in golden.cases("tresnet_names")[case]["extra"]["names"]}
    renamed = {pairs[name]: array for name, array in tensors.items()}
    return {
        name: np.abs(array) + np.float32(1e-5) if name.endswith(".bn.weight") else array
        for name, array in renamed.items()
    }


# The structure is static, so that equal networks share one compilation.
@partial(jax.jit, static_argnums=0)
def _apply(graph, state, images):
    return nnx.merge(graph, state)(images)["logits"]


def _logits(model, images):
    return np.asarray(_apply(*nnx.split(model), images.transpose(0, 2, 3, 1)))


@pytest.mark.parametrize("case", golden.names("tresnet_names"))
@pytest.mark.parametrize(("column", "naming"), [(0, "original"), (1, "timm")])
def test_the_table_has_exactly_the_names_of_the_published_networks(case, column, naming):
    names = [row[column] for row in golden.cases("tresnet_names")[case]["extra"]["names"]]
    table = find_table(_abstract("tresnet_names", case), naming)
    sources = [source for row in table.rows for source in row.sources]
    counters = [name for name in names if name.endswith("num_batches_tracked")]
    assert sorted(sources + counters) == sorted(names)
    assert set(counters) == {name for name in table.unused if not name.endswith("filt")}
    if naming == "original":
        assert sources == [name for name in names if name not in counters]


@pytest.mark.parametrize("case", MINI)
def test_the_round_trip_is_bit_exact_in_the_original_order(case):
    tensors = _without_counters(golden.state_dict("tresnet_eval", case))
    exported = to_torch(from_torch(tensors))
    assert list(exported) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(exported[name], array, strict=True)


@pytest.mark.parametrize(("case", "names"), [("mini_64", "m"), ("mini_v2", "in21k_l")])
def test_timm_names_give_the_logits_of_the_original_names(case, names):
    original = golden.state_dict("tresnet_eval", case)
    images = golden.fill_input(*golden.cases("tresnet_eval")[case]["inputs"]["x"]["fill"])
    slopes = {"stem_slope": 1e-6, "block_slope": 1e-6} if case == "mini_v2" else {}
    ours = from_torch(original, **slopes)
    theirs = from_torch(_to_timm(original, names), **slopes)
    np.testing.assert_array_equal(_logits(theirs, images), _logits(ours, images))
    expected = golden.arrays("tresnet_eval", case)["logits"]
    np.testing.assert_allclose(_logits(theirs, images), expected, atol=1e-4, rtol=0)


def test_timm_files_round_trip_bit_exact():
    tensors = _without_counters(_to_timm(golden.state_dict("tresnet_eval", "mini_64"), "m"))
    exported = to_torch(from_torch(tensors), naming="timm")
    assert exported.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(exported[name], array, strict=True)


def test_negative_gains_of_timm_files_move_into_the_convolution():
    tensors = _to_timm(golden.state_dict("tresnet_eval", "mini_64"), "m")
    images = golden.fill_input("timm.negative", (1, 3, 64, 64))
    expected = _logits(from_torch(tensors), images)
    flipped = dict(tensors)
    for unit in ("body.conv1", "body.layer3.0.conv2"):
        for name in ("conv.weight", "bn.weight", "bn.running_mean"):
            flipped[f"{unit}.{name}"] = -tensors[f"{unit}.{name}"]
    np.testing.assert_array_equal(_logits(from_torch(flipped), images), expected)


def _reproduced(gain):
    """Returns the gain that an imported timm unit has."""
    _, scale, _ = timm_unit.to_jax(np.ones((1, 1, 1, 1), np.float32), gain, gain)
    assert scale.dtype == np.float32
    return np.abs(scale) + np.float32(1e-5)


@given(st.floats(min_value=-1e6, max_value=1e6, width=32))
def test_every_gain_that_timm_converted_is_reproduced_to_the_last_bit(raw):
    gain = np.abs(np.full(1, raw, np.float32)) + np.float32(1e-5)
    np.testing.assert_array_equal(_reproduced(gain), gain)


@given(st.floats(min_value=float(np.float32(1e-5)), max_value=1e6, width=32))
def test_every_gain_that_timm_trained_is_reproduced_to_one_rounding(gain):
    gain = np.full(1, gain, np.float32)
    np.testing.assert_array_max_ulp(_reproduced(gain), gain, maxulp=1)


@pytest.mark.parametrize("gain", [0.0, 1e-6, -1e-6])
def test_timm_gains_below_the_smallest_become_the_smallest(gain):
    gain = np.full(1, gain, np.float32)
    _, scale, _ = timm_unit.to_jax(np.ones((1, 1, 1, 1), np.float32), gain, gain)
    np.testing.assert_array_equal(scale, [0])


def test_raw_gains_keep_their_sign():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    assert (tensors["body.conv1.1.weight"] < 0).any()
    exported = to_torch(from_torch(tensors))
    np.testing.assert_array_equal(exported["body.conv1.1.weight"], tensors["body.conv1.1.weight"])


def test_blur_filters_in_the_file_are_left_out():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    blurs = {
        f"body.layer{stage}.0.conv{conv}.1.op.filt": np.zeros((4, 1, 3, 3), np.float32)
        for stage, conv in ((2, 1), (3, 2), (4, 2))
    }
    table = find_table(_abstract("tresnet_eval", "mini_64"), "original")
    assert blurs.keys() <= table.unused.keys()
    assert not blurs.keys() & to_torch(from_torch({**tensors, **blurs})).keys()


def test_the_import_names_what_is_missing_extra_and_misshapen_at_once():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    del tensors["body.layer3.0.conv2.0.0.weight"]
    tensors["head.fc.bias"] = tensors["head.fc.bias"][:-1]
    tensors["body.layer4.0.se.fc1.bias"] = np.zeros(64, np.float32)
    with pytest.raises(ValueError) as raised:
        from_torch(tensors)
    message = str(raised.value)
    assert "3 problems" in message
    assert "missing: body.layer3.0.conv2.0.0.weight [64,64,3,3]" in message
    assert "misshapen: head.fc.bias is [4], expected [5]" in message
    assert "extra: body.layer4.0.se.fc1.bias [64]" in message


def test_tresnets_have_no_names_of_supcontrast():
    with pytest.raises(ValueError, match="original or timm .*supcon"):
        to_torch(from_torch(golden.state_dict("tresnet_eval", "mini_64")), naming="supcon")
