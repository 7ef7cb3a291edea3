import numpy as np
import pytest
from flax import nnx

from converters.table import (
    Row,
    Table,
    Transform,
    conv,
    copy,
    export_tensors,
    import_tensors,
    join,
    linear,
    pointwise,
    row,
)


class _Network(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3, 5), rngs=rngs)
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)


TABLE = join(
    Table(
        (row("c.w", "conv.kernel", conv), row("c.b", "conv.bias", copy)),
        {"c.steps": "a counter", "c.other": "never there"},
    ),
    Table((row("l.w", "linear.kernel", linear), row("l.b", "linear.bias", copy))),
)


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = {"c.w": (3, 2, 3, 5), "c.b": (3,), "l.w": (4, 3), "l.b": (4,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def model():
    return nnx.eval_shape(lambda: _Network(nnx.Rngs(0)))


def test_an_abstract_network_is_filled_in_jax_layout(tensors, model):
    import_tensors(TABLE, tensors, model)
    np.testing.assert_array_equal(model.conv.kernel[...], tensors["c.w"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(model.linear.kernel[...], tensors["l.w"].T)


def test_export_is_the_inverse_bit_for_bit_in_the_order_of_the_table(tensors, model):
    import_tensors(TABLE, tensors, model)
    exported = export_tensors(TABLE, model)
    assert list(exported) == list(tensors)
    for name, array in exported.items():
        np.testing.assert_array_equal(array, tensors[name])
        assert array.flags.c_contiguous


def test_the_network_does_not_share_memory_with_the_source(tensors, model):
    import_tensors(TABLE, tensors, model)
    before = np.array(model.conv.bias[...])
    tensors["c.b"] += 1
    np.testing.assert_array_equal(model.conv.bias[...], before)


def test_the_report_counts_and_gives_reasons(tensors, model):
    report = import_tensors(TABLE, {**tensors, "c.steps": np.zeros(())}, model)
    assert report.mapped == 4
    assert report.unused == {"c.steps": "a counter"}
    assert report.parameters == 3 * 2 * 3 * 5 + 3 + 4 * 3 + 4


def test_a_row_without_targets_is_for_the_export_alone(tensors, model):
    ones = Transform("ones", lambda _: (), lambda: (np.ones(2, np.float32),))
    table = join(TABLE, Table((Row(("spare",), (), ones),), {"spare": "nothing reads it"}))
    report = import_tensors(table, {**tensors, "spare": np.zeros(9)}, model)
    assert report.mapped == 4
    assert report.unused == {"spare": "nothing reads it"}
    np.testing.assert_array_equal(export_tensors(table, model)["spare"], np.ones(2))


def test_every_problem_is_listed_in_one_error(tensors, model):
    del tensors["c.b"]
    tensors["l.w"] = tensors["l.w"].T
    tensors["extra"] = np.zeros((7, 1), np.float32)
    with pytest.raises(ValueError) as raised:
        import_tensors(TABLE, tensors, model, "net.pth")
    message = str(raised.value)
    assert message.startswith("net.pth does not fit the network: 3 problems")
    assert "missing: c.b [3]" in message
    assert "misshapen: l.w is [3,4], expected [4,3]" in message
    assert "extra: extra [7,1]" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_listed_with_the_other_problems(tensors, model, value):
    tensors["c.w"][0, 1, 2, 3] = tensors["l.w"][0] = value
    del tensors["c.b"]
    with pytest.raises(ValueError) as raised:
        import_tensors(TABLE, tensors, model, "net.pth")
    message = str(raised.value)
    assert message.startswith("net.pth does not fit the network: 3 problems")
    assert "not finite: c.w holds nan or infinity" in message
    assert "not finite: l.w holds nan or infinity" in message
    assert "missing: c.b [3]" in message


def test_an_unused_source_need_not_be_finite(tensors, model):
    tensors["c.steps"] = np.array(np.nan)
    assert import_tensors(TABLE, tensors, model).unused == {"c.steps": "a counter"}


def test_a_failed_import_leaves_the_network_alone(tensors):
    model = _Network(nnx.Rngs(0))
    before = np.array(model.conv.kernel[...])
    del tensors["l.b"]
    with pytest.raises(ValueError, match="missing: l.b"):
        import_tensors(TABLE, tensors, model)
    np.testing.assert_array_equal(model.conv.kernel[...], before)


def test_a_variable_without_a_row_fails(tensors, model):
    short = Table(TABLE.rows[:3])
    del tensors["l.b"]
    with pytest.raises(ValueError, match="no row for linear.bias"):
        import_tensors(short, tensors, model)
    with pytest.raises(ValueError, match="does not fit the network at linear.bias"):
        export_tensors(short, _Network(nnx.Rngs(0)))


def test_a_row_without_a_variable_fails(tensors, model):
    long = join(TABLE, Table((row("x", "linear.scale", copy),)))
    with pytest.raises(ValueError, match="the network has no linear.scale"):
        import_tensors(long, {**tensors, "x": np.zeros(1, np.float32)}, model)


def test_one_source_can_feed_several_targets_and_several_one(tensors, model):
    halves = Transform("halves", lambda x: (x[:3], x[3:]), lambda a, b: (np.concatenate([a, b]),))
    parts = Transform("parts", lambda a, b: (np.stack([a, b]).T,), lambda k: (k[:, 0], k[:, 1]))
    pair = nnx.eval_shape(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    both = Table((Row(("a", "b"), ("kernel",), parts), row("bias", "bias", copy)))
    source = {"a": tensors["c.b"], "b": tensors["c.b"] * 2, "bias": np.zeros(2, np.float32)}
    import_tensors(both, source, pair)
    np.testing.assert_array_equal(export_tensors(both, pair)["b"], source["b"])

    biases = Row(("biases",), ("conv.bias", "linear.bias"), halves)
    table = Table((TABLE.rows[0], biases, TABLE.rows[2]))
    joined = np.concatenate([tensors.pop("c.b"), tensors.pop("l.b")])
    import_tensors(table, {**tensors, "biases": joined}, model)
    np.testing.assert_array_equal(model.linear.bias[...], joined[3:])
    np.testing.assert_array_equal(export_tensors(table, model)["biases"], joined)


@pytest.mark.parametrize(
    ("transform", "shape", "expected"),
    [
        (conv, (8, 1, 3, 5), (3, 5, 1, 8)),
        (linear, (4, 3), (3, 4)),
        (pointwise, (4, 3, 1, 1), (3, 4)),
        (copy, (7,), (7,)),
    ],
)
def test_transforms_change_the_layout_and_undo_it(transform, shape, expected):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    (converted,) = transform.to_jax(array)
    assert converted.shape == expected
    (back,) = transform.to_torch(converted)
    np.testing.assert_array_equal(back, array)
