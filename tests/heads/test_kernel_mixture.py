"""KMCL's head against the published code, and what the published code cannot do."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.heads.kernel_mixture import KernelMixture
from mljax.losses.asymmetric import asymmetric_loss
from mljax.losses.kernel_mixture import kernel_contrastive_loss, reconstruction_loss
from tests import golden

CASES = {
    case: pytest.param(case, marks=() if "4x16x5" in case else pytest.mark.slow)
    for case in golden.names("kmcl_head")
}
WITH_LOSS = [CASES[case] for case in CASES if "total" in golden.arrays("kmcl_head", case)]
PRECISIONS = pytest.mark.parametrize("dtype", ["float32", "float64"])
SIMILARITIES = {"BC": "bhattacharyya", "MKS": "mahalanobis", "RBF": "rbf"}
PAIRS = [(covariance, s) for covariance in ("anisotropic", "isotropic") for s in SIMILARITIES]
ALL_PAIRS = pytest.mark.parametrize(("covariance", "similarity"), PAIRS)
B, D, K = 4, 6, 3


def _head(covariance, similarity, *, seed=0, **options):
    return KernelMixture(
        D,
        K,
        covariance=covariance,
        similarity=SIMILARITIES[similarity],
        reduced_features=5,
        rngs=nnx.Rngs(seed),
        **options,
    )


def _features(size=2):
    return jax.random.uniform(jax.random.key(0), (B, size, size, D))


def _reference_head(case, dtype):
    """Returns a case's head; its reduction is the identity, for the case starts behind it."""
    extra = golden.cases("kmcl_head")[case]["extra"]
    head = KernelMixture(
        extra["D"],
        extra["K"],
        covariance=extra["loss_case"],
        similarity=SIMILARITIES[extra["similarity"]],
        asymmetric_only=extra["loss_opt"] == "ASLOnly",
        reduced_features=extra["D"],
        rngs=nnx.Rngs(0),
    )
    if head.down_sampler is not None:
        head.down_sampler.kernel[...] = jnp.eye(extra["D"], dtype="float32")
        head.down_sampler.bias[...] = jnp.zeros(extra["D"], "float32")
    for name, value in golden.state_dict("kmcl_head", case).items():
        _, layer, parameter = name.split(".")
        target = getattr(getattr(head, layer), {"weight": "kernel", "bias": "bias"}[parameter])
        target[...] = jnp.asarray(value.T)
    graph, params = nnx.split(head)
    return graph, jax.tree.map(lambda x: x.astype(dtype), params)


def _reference_features(case, dtype):
    fill = golden.cases("kmcl_head")[case]["inputs"]["features"]["fill"]
    return jnp.asarray(golden.fill_input(*fill)[:, None, None, :], dtype)


@cache
def _outputs_and_gradients(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        graph, params = _reference_head(case, dtype)
        features = _reference_features(case, dtype)
        labels = jnp.asarray(golden.arrays("kmcl_head", case)["y"], dtype)

        def total(params, features):
            outputs = nnx.merge(graph, params)(features)
            if "means" not in outputs:
                return jnp.sum(outputs["logits"]), ({}, outputs)
            kernels = {name: outputs[name] for name in ("features", "means", "variances")}
            asl = asymmetric_loss(
                outputs["logits"], labels, gamma_neg=4.0, gamma_pos=0.0, clip=0.05, eps=1e-7
            )
            terms = {
                "asl": jnp.sum(asl),
                "nll": reconstruction_loss(outputs["logits"], labels, **kernels).mean(),
                "bd": kernel_contrastive_loss(labels=labels, **kernels).mean(),
            }
            return sum(terms.values()), (terms, outputs)

        run = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
        (value, (terms, outputs)), (gradients, to_features) = run(params, features)
    terms = {"total": value} | terms
    slopes = {"features": np.asarray(to_features)[:, 0, 0]}
    for layer, parameters in nnx.to_pure_dict(gradients).items():
        slopes[f"kmm.{layer}.weight"] = np.asarray(parameters["kernel"]).T
        slopes[f"kmm.{layer}.bias"] = np.asarray(parameters["bias"])
    return jax.tree.map(np.asarray, (terms, outputs)), slopes


@PRECISIONS
@pytest.mark.parametrize("case", CASES.values())
def test_outputs_equal_the_reference(case, dtype):
    (_, outputs), _ = _outputs_and_gradients(case, dtype)
    arrays = golden.arrays("kmcl_head", case)
    extra = golden.cases("kmcl_head")[case]["extra"]
    suffix, tolerance = ("", 1e-5) if dtype == "float32" else ("_f64", 1e-12)
    b, k = extra["B"], extra["K"]
    for name, reference in {"logits": "pi", "means": "mu", "variances": "var"}.items():
        if reference + suffix not in arrays:
            assert name not in outputs or f"{reference}{suffix}__l2" in arrays
            continue
        # The reference writes shared variances out, and flattens them.
        expected = arrays[reference + suffix].reshape(b, -1, k)
        actual = outputs[name].reshape(b, -1, outputs[name].shape[-1])
        actual = np.broadcast_to(actual, expected.shape)
        assert outputs[name].dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@PRECISIONS
@pytest.mark.parametrize("case", WITH_LOSS)
def test_losses_on_the_head_equal_the_reference(case, dtype):
    (terms, _), _ = _outputs_and_gradients(case, dtype)
    arrays = golden.arrays("kmcl_head", case)
    for term, value in terms.items():
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(value, arrays[f"{term}_f64"], rtol=tolerance, err_msg=term)


@PRECISIONS
@pytest.mark.parametrize("case", WITH_LOSS)
def test_gradients_of_head_and_features_equal_the_reference(case, dtype):
    _, slopes = _outputs_and_gradients(case, dtype)
    arrays = golden.arrays("kmcl_head", case)
    compared = 0
    for name, slope in slopes.items():
        key = f"dtotal_d{name}"
        expected = arrays.get(f"{key}_f64")
        if expected is None and dtype == "float32":
            expected = arrays.get(key)
            if f"{key}__first64" in arrays:
                np.testing.assert_allclose(np.linalg.norm(slope), arrays[f"{key}__l2"], rtol=1e-4)
                slope, expected = slope.ravel()[:64], arrays[f"{key}__first64"]
        if expected is not None:
            tolerance = (1e-4 if dtype == "float32" else 1e-10) * np.abs(expected).max()
            np.testing.assert_allclose(slope, expected, rtol=0, atol=tolerance, err_msg=key)
            compared += 1
    assert compared


@pytest.mark.usefixtures("little_optimization")
@ALL_PAIRS
def test_every_pair_gives_kernels_that_broadcast_and_finite_losses(covariance, similarity):
    head = _head(covariance, similarity)
    outputs = head(_features())
    width = {"anisotropic": 5, "isotropic": D}[covariance]
    own = (5 if covariance == "anisotropic" else 1, K)
    shapes = {"BC": own, "MKS": (width, 1), "RBF": (1, 1)}
    assert outputs["features"].shape == (B, width)
    assert outputs["means"].shape == (B, *own)
    assert outputs["variances"].shape == (B, *shapes[similarity])
    labels = jnp.array([[1.0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]])

    @jax.jit
    def losses(logits, **kernels):
        contrast = kernel_contrastive_loss(labels=labels, **kernels)
        return contrast, reconstruction_loss(logits, labels, **kernels)

    assert jnp.isfinite(jnp.stack(losses(**outputs))).all()


@pytest.mark.usefixtures("little_optimization")
@ALL_PAIRS
def test_outputs_of_an_image_do_not_depend_on_its_batch(covariance, similarity):
    # The batch is as large as the width, where the reference's RBF kernels mix images.
    head = nnx.jit(_head(covariance, similarity))
    features = jnp.concatenate([_features(), _features()[:1] / 2])
    alone = [head(features[i : i + 1]) for i in range(5)]
    for name, together in head(features).items():
        np.testing.assert_allclose(
            together, jnp.concatenate([outputs[name] for outputs in alone]), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("size", [1, 3])
def test_map_is_pooled_over_space(size):
    head = _head("isotropic", "BC")
    np.testing.assert_allclose(
        head(_features(size))["features"], _features(size).mean((1, 2)), rtol=1e-6
    )


def test_anisotropic_head_reduces_to_128_dimensions():
    head = nnx.eval_shape(lambda: KernelMixture(2048, 20, rngs=nnx.Rngs(0)))
    assert head.down_sampler.kernel.shape == (2048, 128)
    assert head.mean.kernel.shape == head.var.kernel.shape == (128, 2560)


def test_dimensions_vary_slower_than_classes_in_the_flat_layers():
    head = _head("anisotropic", "BC")
    head.mean.kernel[...] = jnp.zeros_like(head.mean.kernel[...])
    head.mean.bias[...] = jnp.arange(15.0)
    np.testing.assert_array_equal(head(_features())["means"][0], jnp.arange(15.0).reshape(5, K))


def test_variances_are_at_least_one():
    head = _head("anisotropic", "BC")
    head.var.bias[...] = jnp.full(15, -1e4)
    np.testing.assert_array_equal(head(_features())["variances"], 1)


def test_asymmetric_only_head_has_logits_alone():
    head = _head("anisotropic", "BC", asymmetric_only=True)
    assert head(_features()).keys() == {"logits", "features"}
    assert head.mean is None
    assert head.var is None
    assert head.down_sampler is not None


@ALL_PAIRS
def test_initial_weights_are_the_originals(covariance, similarity):
    head = KernelMixture(
        64, 50, covariance=covariance, similarity=SIMILARITIES[similarity], rngs=nnx.Rngs(0)
    )
    width = 128 if covariance == "anisotropic" else 64
    bounds = {head.pi: width**-0.5}
    if head.down_sampler is not None:
        bounds[head.down_sampler] = 64**-0.5
    for layer, bound in bounds.items():
        for values in (layer.kernel[...], layer.bias[...]):
            assert jnp.abs(values).max() <= bound
            assert jnp.abs(values).max() > 0.8 * bound
            assert values.min() < 0 < values.max()
    assert 0 <= head.mean.kernel[...].min() < 0.001
    assert 0.099 < head.mean.kernel[...].max() < 0.1
    np.testing.assert_array_equal(head.var.kernel[...], 1)
    for layer in (head.mean, head.var):
        np.testing.assert_array_equal(layer.bias[...], 0)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_outputs_are_float32_under_half_precision(dtype):
    head, exact = (_head("anisotropic", "BC", dtype=dtype) for dtype in (dtype, None))
    features = _features().astype(jnp.bfloat16)
    for name, value in exact(features.astype(jnp.float32)).items():
        assert head(features)[name].dtype == jnp.float32
        np.testing.assert_allclose(head(features)[name], value, rtol=1e-6)


@pytest.mark.parametrize("argument", ["covariance", "similarity"])
def test_an_unknown_choice_is_named_with_the_known_ones(argument):
    with pytest.raises(ValueError, match=f"{argument}.*'BC'.*expected one of (aniso|bhatta)"):
        KernelMixture(D, K, **{argument: "BC"}, rngs=nnx.Rngs(0))
