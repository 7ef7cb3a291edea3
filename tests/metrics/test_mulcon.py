"""The meters of MulCon, ML-GCN and Query2Label on the same logits."""

import numpy as np
import pytest

from mljax.evaluation.scores import sigmoid
from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.ranking import average_precision, mean_average_precision
from tests import golden

CASES = golden.names("mulcon_metrics")
FIELDS = ("OP", "OR", "OF1", "CP", "CR", "CF1")


def _read(case):
    arrays = golden.arrays("mulcon_metrics", case)
    return arrays["logits"], (arrays["targets"] > 0).astype(int), arrays


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("system", ["mulcon", "mlgcn"])
@pytest.mark.parametrize("case", CASES)
def test_precision_recall_f1_equals_reference(case, system, top_k):
    logits, labels, arrays = _read(case)
    key = f"{system}_{'top3' if top_k else 'overall'}"
    if key not in arrays:
        assert (case, key) == ("extreme", "mulcon_top3")
        pytest.skip("sigmoids that are equal to 1: the reference's top three are arbitrary")
    scores, threshold = (sigmoid(logits), 0.5) if system == "mulcon" else (logits, 0.0)
    if system == "mlgcn":
        labels = (arrays["targets_mlgcn"] > 0).astype(int)
    found = precision_recall_f1(
        scores,
        labels,
        threshold=threshold,
        top_k=top_k,
        inclusive=True,
        count_unpredicted_classes=True,
        harmonic_class_f1=True,
    )
    expected = dict(zip(FIELDS, arrays[key].tolist(), strict=True))
    if not labels.any(axis=0).all():
        # The recall of a class without a positive is 0 / 0: nan there, and so is what it is in.
        assert np.isnan([expected.pop("CR"), expected.pop("CF1")]).all()
    for name, value in expected.items():
        # F1 of nothing found is 0 / 0 there.
        value = 100 * np.nan_to_num(value)
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", [name for name in CASES if name != "extreme"])
def test_average_precision_equals_mulcon(case):
    logits, labels, arrays = _read(case)
    positives = labels.sum(0)
    found = average_precision(sigmoid(logits), labels) * positives / (positives + 1e-6)
    np.testing.assert_allclose(found, arrays["mulcon_ap"], atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_average_precision_equals_ml_gcn(case):
    logits, _, arrays = _read(case)
    targets = arrays["targets_mlgcn"]
    if "mlgcn_ap" not in arrays:
        assert not (targets > 0).any(axis=0).all()
        pytest.skip("the reference divides by zero positives")
    found = average_precision(logits, (targets > 0).astype(int), ignored=targets == 0)
    np.testing.assert_allclose(found, arrays["mlgcn_ap"], atol=1e-7)


@pytest.mark.parametrize("case", [name for name in CASES if name != "extreme"])
def test_interpolated_average_precision_equals_query2label(case):
    logits, labels, arrays = _read(case)
    found = 100 * average_precision(sigmoid(logits), labels, interpolated=True)
    expected = arrays["q2l_aps"]
    assert np.array_equal(np.isnan(expected), ~labels.any(axis=0))
    np.testing.assert_allclose(found, np.nan_to_num(expected), atol=1e-5)
    mean = mean_average_precision(sigmoid(logits), labels, interpolated=True)
    if not np.isnan(expected).any():
        np.testing.assert_allclose(mean, arrays["q2l_map"], atol=1e-5)
    assert (found >= 100 * average_precision(sigmoid(logits), labels)).all()
