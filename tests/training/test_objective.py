"""The training loss: how terms find their arguments, and how they are reduced and added."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.config import LossConfig, loss, part
from mljax.training.objective import check_losses, make_terms, total_loss

PLAIN = loss("asymmetric_loss")


def _rows(b=4, k=3):
    logits = jax.random.normal(jax.random.key(0), (b, k))
    labels = (jax.random.uniform(jax.random.key(1), (b, k)) < 0.5).astype(jnp.float32)
    return {"logits": logits}, {"labels": labels, "valid": jnp.ones(b, bool)}


def _total(outputs, batch, *losses):
    return total_loss(make_terms(losses, ()), outputs, batch)


def test_mean_is_the_sum_over_classes_and_mean_over_the_batch():
    outputs, batch = _rows()
    summed, _ = _total(outputs, batch, PLAIN)
    mean, _ = _total(outputs, batch, dataclasses.replace(PLAIN, reduction="mean"))
    np.testing.assert_allclose(mean, summed / 4, rtol=1e-6)


def test_weights_scale_the_terms_but_not_their_report():
    outputs, batch = _rows()
    plain, terms = _total(outputs, batch, PLAIN)
    weighted, same = _total(outputs, batch, dataclasses.replace(PLAIN, weight=0.5))
    np.testing.assert_allclose(weighted, plain / 2, rtol=1e-6)
    np.testing.assert_array_equal(terms["asymmetric_loss"], same["asymmetric_loss"])


def test_terms_are_added():
    outputs, batch = _rows()
    other = loss("selective_loss", mode="negative", reduction="mean", weight=3.0)
    total, terms = _total(outputs, batch, PLAIN, other)
    expected = terms["asymmetric_loss"] + 3 * terms["selective_loss"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_examples_that_are_not_valid_count_nothing():
    outputs, batch = _rows()
    outputs["logits"] = outputs["logits"].at[3].set(jnp.nan)
    batch["valid"] = batch["valid"].at[3].set(False)
    total, _ = _total(outputs, batch, PLAIN)
    shorter = {k: v[:3] for k, v in {**outputs, **batch}.items()}
    expected, _ = _total(shorter, shorter, PLAIN)
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_unannotated_labels_alone_give_no_gradient():
    batch = {"labels": jnp.full((2, 3), -1.0), "valid": jnp.ones(2, bool)}
    grad = jax.grad(lambda x: _total({"logits": x}, batch, PLAIN)[0])(jnp.ones((2, 3)))
    np.testing.assert_array_equal(grad, 0)


def test_a_loss_whose_input_no_one_gives_names_both_sides():
    outputs, batch = _rows()
    del outputs["logits"]
    with pytest.raises(ValueError, match="asymmetric_loss reads logits, .* only labels, valid"):
        _total(outputs, batch, PLAIN)


def test_a_part_among_the_arguments_is_called_with_the_class_names(tmp_path):
    path = tmp_path / "prior.csv"
    path.write_text("Classes,avg_pred\ncat,0.25\ndog,0.5\n")
    prior = part("prior_csv", path=str(path))
    (term,) = make_terms((loss("selective_loss", mode="selective", prior=prior),), ("dog", "cat"))
    np.testing.assert_array_equal(term.kwargs["prior"], [0.5, 0.25])
    assert term.kwargs["mode"] == "selective"


def test_a_plug_ins_loss_is_shown_as_its_function():
    (term,) = make_terms((loss(squared_loss),), ())
    assert term.name == "squared_loss"
    assert term.function is squared_loss


def squared_loss(logits, labels):
    return (logits - labels) ** 2


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (LossConfig(name="asymetric_loss"), "unknown loss .* did you mean asymmetric_loss"),
        (loss("asymmetric_loss", gama_neg=1), "'gama_neg'; did you mean gamma_neg"),
        (loss("selective_loss", prior=part("prior_cvs")), "'prior_cvs'; did you mean prior_csv"),
        (loss("selective_loss", prior=part("prior_csv")), "prior_csv needs the argument path"),
    ],
)
def test_losses_that_do_not_fit_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        check_losses((chosen,))
