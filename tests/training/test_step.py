"""The train step: the original's trajectory, and how losses find their arguments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters import from_torch, to_torch
from mljax.config.schema import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Preprocessing,
    ScheduleConfig,
    TrainConfig,
    part,
)
from mljax.models.classifier import merge_model
from mljax.training.optimizer import make_optimizer
from mljax.training.step import check_losses, make_state, make_train_step, total_loss
from tests import golden, miniature


def recipe(hyper):
    return Config(
        data=DataConfig(
            reader=part("digits"), preprocessing=Preprocessing(image_size=64), batch_size=4
        ),
        model=ModelConfig(backbone=part("tresnet_m")),
        losses=(
            LossConfig(
                name="asymmetric_loss", kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05}
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=hyper["lr"], weight_decay=hyper["weight_decay"]),
        schedule=ScheduleConfig(warmup_fraction=hyper["pct_start"]),
        train=TrainConfig(epochs=1, ema_decay=hyper["ema_decay"]),
    )


@pytest.mark.parametrize(("twin", "tolerance"), [("", 1e-4), ("_f64", 1e-11)])
def test_six_steps_follow_the_originals_trajectory(twin, tolerance):
    row, expected = golden.cases("asl_train")["e2e_mini"], golden.arrays("asl_train", "e2e_mini")
    hyper, config = row["hyper"], recipe(row["hyper"])
    with jax.enable_x64(bool(twin)):
        model = from_torch(golden.state_dict("asl_train", "e2e_mini"))
        optimizer = make_optimizer(
            config.optimizer, config.schedule, hyper["steps_per_epoch"] * hyper["epochs"]
        )
        state = make_state(model, optimizer, ema_decay=hyper["ema_decay"])
        if twin:
            wide = {
                name: {k: v.astype(float) for k, v in getattr(state, name).items()}
                for name in ("params", "stats", "ema_params", "ema_stats")
            }
            state = dataclasses.replace(state, opt_state=optimizer.init(wide["params"]), **wide)
        step = jax.jit(make_train_step(model, optimizer, config))
        losses = []
        for i in range(hyper["steps"]):
            x = np.moveaxis(golden.fill_input(f"e2e.x{i}", (4, 3, 64, 64)), 1, -1)
            y = golden.fill_input(f"e2e.y{i}", (4, 5)) < 0.3
            dtype = float if twin else np.float32
            batch = {
                "images": jnp.asarray(x, dtype),
                "labels": jnp.asarray(y, dtype),
                "valid": np.ones(4, bool),
            }
            state, metrics = step(state, batch, jax.random.key(0))
            losses.append(metrics["loss"])
        np.testing.assert_allclose(losses, expected["losses" + twin], rtol=tolerance)
        graph = nnx.graphdef(model)
        x0 = jnp.asarray(np.moveaxis(golden.fill_input("e2e.x0", (4, 3, 64, 64)), 1, -1), dtype)
        for prefix, params, stats in (
            ("", state.params, state.stats),
            ("ema_", state.ema_params, state.ema_stats),
        ):
            trained = merge_model(graph, params, stats)
            found = to_torch(trained)
            for kind in ("param", "stat"):
                names = row["extra"][f"{kind}_names"]
                norms = [np.linalg.norm(found[name].ravel()) for name in names]
                np.testing.assert_allclose(
                    norms, expected[f"{prefix}{kind}_norms{twin}"], rtol=tolerance, atol=tolerance
                )
            logits = jax.jit(lambda x, m=trained: m(x)["logits"])(x0)
            np.testing.assert_allclose(
                logits, expected[f"{prefix}eval_logits{twin}"], rtol=tolerance, atol=tolerance
            )
        np.testing.assert_allclose(
            to_torch(merge_model(graph, state.params, state.stats))["head.fc.weight"][:, :16],
            expected["fc_weight" + twin],
            rtol=tolerance,
            atol=tolerance,
        )


def outputs(b=4, k=3):
    logits = jax.random.normal(jax.random.key(0), (b, k))
    labels = (jax.random.uniform(jax.random.key(1), (b, k)) < 0.5).astype(jnp.float32)
    return {"logits": logits}, {"labels": labels, "valid": jnp.ones(b, bool)}


def test_mean_is_the_sum_over_classes_and_mean_over_the_batch():
    out, batch = outputs()
    summed, _ = total_loss((LossConfig(name="asymmetric_loss"),), out, batch)
    mean, _ = total_loss((LossConfig(name="asymmetric_loss", reduction="mean"),), out, batch)
    np.testing.assert_allclose(mean, summed / 4, rtol=1e-6)


def test_weights_scale_the_terms_but_not_their_report():
    out, batch = outputs()
    loss = LossConfig(name="asymmetric_loss")
    plain, terms = total_loss((loss,), out, batch)
    weighted, same = total_loss((dataclasses.replace(loss, weight=0.5),), out, batch)
    np.testing.assert_allclose(weighted, plain / 2, rtol=1e-6)
    np.testing.assert_array_equal(terms["asymmetric_loss"], same["asymmetric_loss"])


def test_examples_that_are_not_valid_count_nothing():
    out, batch = outputs()
    out["logits"] = out["logits"].at[3].set(jnp.nan)
    batch["valid"] = batch["valid"].at[3].set(False)
    total, _ = total_loss((LossConfig(name="asymmetric_loss"),), out, batch)
    shorter = {k: v[:3] for k, v in {**out, **batch}.items()}
    expected, _ = total_loss((LossConfig(name="asymmetric_loss"),), shorter, shorter)
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_a_loss_whose_input_no_one_gives_names_both_sides():
    out, batch = outputs()
    del out["logits"]
    with pytest.raises(ValueError, match="asymmetric_loss reads logits, .* only labels, valid"):
        total_loss((LossConfig(name="asymmetric_loss"),), out, batch)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ((), "at least one"),
        ((LossConfig(name="asymmetric_loss"),) * 2, "each once"),
        ((LossConfig(name="asymetric_loss"),), "did you mean asymmetric_loss"),
        ((LossConfig(name="asymmetric_loss", kwargs={"gama_neg": 1}),), "did you mean gamma_neg"),
    ],
)
def test_recipes_with_wrong_losses_are_refused(losses, message):
    with pytest.raises(ValueError, match=message):
        check_losses(losses)


def _prior_after(steps, parts):
    """Returns the prior of some steps, and the predictions of the images that count in it."""
    changes = ("train.estimate_prior=True", f"train.accumulation={parts}")
    config = miniature.training_recipe(*changes)
    model = miniature.model(backbone=config.model.backbone)
    optimizer = make_optimizer(config.optimizer, config.schedule, 60)
    state = make_state(model, optimizer, ema_decay=0.9, estimate_prior=True)
    step = jax.jit(make_train_step(model, optimizer, config))
    training = nnx.view(model, use_running_average=False, raise_if_not_found=False)
    graph = nnx.graphdef(training)
    predict = jax.jit(lambda p, s, x: jax.nn.sigmoid(merge_model(graph, p, s)(x)["logits"]))
    scores = []
    for number in range(steps):
        rng = np.random.default_rng(number)
        batch = {
            "images": rng.uniform(size=(8, 32, 32, 3)).astype(np.float32),
            "labels": rng.integers(-1, 2, (8, 10)).astype(np.float32),
            "valid": np.arange(8) != number,
        }
        for part_ in range(parts):
            rows = {name: array[part_::parts] for name, array in batch.items()}
            found = predict(state.params, state.stats, rows["images"])
            scores.append(found[rows["valid"]])
        state, _ = step(state, batch, jax.random.key(0))
    return state.prior, np.concatenate(scores)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_prior_is_the_mean_prediction_in_training_mode_over_valid_images(parts):
    prior, scores = _prior_after(3, parts)
    assert prior["count"] == len(scores) == 21
    np.testing.assert_allclose(prior["mean"], scores.mean(0), atol=1e-5)


def test_unannotated_labels_alone_give_no_gradient():
    labels = jnp.full((2, 3), -1.0)
    batch = {"labels": labels, "valid": jnp.ones(2, bool)}
    losses = (LossConfig(name="asymmetric_loss"),)
    grad = jax.grad(lambda x: total_loss(losses, {"logits": x}, batch)[0])(jnp.ones((2, 3)))
    np.testing.assert_array_equal(grad, 0)
