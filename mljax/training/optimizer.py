"""Gradients to updates: torch's Adam and SGD on optax, groups of parameters, the moving average."""

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from mljax.config.part import Part, resolve, table
from mljax.config.schema import ParameterGroup
from mljax.config.signatures import bind

Arrays = dict[str, Any]
Hyperparameters = Mapping[str, Any]
# Hyperparameters of one step to the transformation with these; all have one state structure.
Optimizer = Callable[[Hyperparameters], optax.GradientTransformation]


def decay_mask(params: Arrays) -> Any:  # noqa: ANN401
    """Returns which parameters are decayed: none of one axis, none named `bias`.

    Source: `add_weight_decay` of Alibaba-MIIL/ASL `src/helper_functions/helper_functions.py`.

    Args:
      params: arrays by dotted path.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, array: array.ndim != 1 and not str(path[-1].key).endswith(".bias"), params
    )


def torch_adam(
    learning_rate: float | Array,
    *,
    weight_decay: float | Array = 0.0,
    beta1: float | Array = 0.9,
    beta2: float | Array = 0.999,
    eps: float | Array = 1e-8,
) -> optax.GradientTransformation:
    """Returns torch's Adam as the published recipes use it: with L2 decay in the gradient.

    The decay is added before the moments, for matrices and filters only (`decay_mask`). Where beta1
    cycles, its bias correction at step t is `1 - beta1_t ** t` with the current beta1, as torch has
    it.

    Source: `torch.optim.Adam`; Kingma and Ba, https://arxiv.org/abs/1412.6980, algorithm 1.

    Raises:
      ValueError: for a number out of its range.
    """
    _check("torch_adam", 0.0, math.inf, weight_decay=weight_decay, eps=eps)
    _check("torch_adam", 0.0, 1.0, beta1=beta1, beta2=beta2)
    return _from_zeros(
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.scale_by_adam(b1=beta1, b2=beta2, eps=eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def torch_adamw(
    learning_rate: float | Array,
    *,
    weight_decay: float | Array = 1e-2,
    beta1: float | Array = 0.9,
    beta2: float | Array = 0.999,
    eps: float | Array = 1e-8,
) -> optax.GradientTransformation:
    """Returns torch's AdamW: all parameters shrink by learning rate times `weight_decay` a step.

    Biases and gains are decayed too, as there; `no_bias_decay` spares them. A beta1 that cycles is
    corrected as in `torch_adam`.

    Source: `torch.optim.AdamW`; Loshchilov and Hutter, Decoupled Weight Decay Regularization,
    https://arxiv.org/abs/1711.05101, algorithm 2.

    Raises:
      ValueError: for a number out of its range.
    """
    _check("torch_adamw", 0.0, math.inf, weight_decay=weight_decay, eps=eps)
    _check("torch_adamw", 0.0, 1.0, beta1=beta1, beta2=beta2)
    return _from_zeros(
        optax.scale_by_adam(b1=beta1, b2=beta2, eps=eps),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def torch_sgd(
    learning_rate: float | Array,
    *,
    momentum: float | Array = 0.0,
    nesterov: bool = False,
    weight_decay: float | Array = 0.0,
) -> optax.GradientTransformation:
    """Returns torch's SGD: L2 decay of all parameters in the gradient, then momentum.

    Source: `torch.optim.SGD` without dampening.

    Raises:
      ValueError: for a number out of its range.
    """
    _check("torch_sgd", 0.0, math.inf, weight_decay=weight_decay, momentum=momentum)
    return _from_zeros(
        optax.add_decayed_weights(weight_decay),
        optax.trace(decay=momentum, nesterov=nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )


def _from_zeros(*transforms: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns transformations in a row whose moments begin as zeros.

    The zeros come from the host: XLA would compile a program for each shape.
    """
    chained = optax.chain(*transforms)

    def init(params: optax.Params) -> optax.OptState:
        def begin(node: Any) -> Any:  # noqa: ANN401
            if isinstance(node, dict):
                return jax.tree.map(lambda array: np.zeros(array.shape, array.dtype), params)
            return node

        # Without parameters, each moment is an empty dict.
        empty = chained.init({})
        state = jax.tree.map(begin, empty, is_leaf=lambda node: isinstance(node, dict))
        return jax.device_put(state)

    return chained._replace(init=init)


def _check(owner: str, low: float, below: float, **values: float | Array) -> None:
    """Checks numbers of a config; those that a schedule moves are arrays here."""
    for name, value in values.items():
        if isinstance(value, (int, float)) and not low <= value < below:
            raise ValueError(
                f"{owner}: {name} must be at least {low:g} and less than {below:g}, got {value}"
            )


ALGORITHMS = table(
    "algorithm", {"torch_adam": torch_adam, "torch_adamw": torch_adamw, "torch_sgd": torch_sgd}
)


def make_optimizer(
    algorithm: Part, groups: Sequence[ParameterGroup] = (), clip_norm: float | None = None
) -> Optimizer:
    """Returns the optimizer of a run as a function of the hyperparameters of a step.

    The transformation is made anew in each step with that step's hyperparameters, as
    `optax.inject_hyperparams` does, so none of them is part of the state: what a config changes on
    resume takes effect.

    Args:
      algorithm: a factory `(learning_rate, **kwargs)`.
      groups: parameters with another rate or other arguments.
      clip_norm: the largest global norm of the gradients.

    Raises:
      ValueError: for an unknown algorithm, or arguments that it does not take.
    """
    factory = resolve(algorithm.name, "algorithm")
    for kwargs in ({}, *(group.kwargs for group in groups)):
        given = {**algorithm.kwargs, **kwargs}
        bind(factory, given, f"algorithm {algorithm.name}")
        factory(0.0, **given)  # What is out of range fails here, before any data is read.

    def single(
        hyperparameters: Hyperparameters, group: ParameterGroup
    ) -> optax.GradientTransformation:
        if group.frozen:
            return optax.set_to_zero()
        update = factory(**{**algorithm.kwargs, **group.kwargs, **hyperparameters})
        if group.rate_factor == 1:
            return update
        # Every algorithm's update is its direction times the rate.
        return optax.chain(update, optax.scale(group.rate_factor))

    def optimizer(hyperparameters: Hyperparameters) -> optax.GradientTransformation:
        rest = single(hyperparameters, ParameterGroup(pattern="*"))
        if groups:
            each = {str(i): single(hyperparameters, group) for i, group in enumerate(groups)}
            rest = optax.partition(
                {**each, "rest": rest}, lambda params: group_names(params, groups)
            )
        if clip_norm is None:
            return rest
        return optax.chain(optax.clip_by_global_norm(clip_norm), rest)

    return optimizer


def no_bias_decay(*without_decay: str, bias_rate_factor: float = 2.0) -> tuple[ParameterGroup, ...]:
    """Returns groups in which neither biases nor other parameters of one axis decay.

    Biases also have their own rate. All else keeps the algorithm's `weight_decay`.

    Source: tosfaq/deep-object-reid (branch multilabel-paper) torchreid/optim/optimizer.py with
    `no_bias_decay`; the doubled rate is Caffe's.

    Args:
      without_decay: patterns of more parameters that do not decay, such as `*.queries`.
      bias_rate_factor: factor of the learning rate of biases.
    """
    undecayed = {"weight_decay": 0.0}
    return (
        ParameterGroup(pattern="*.bias", rate_factor=bias_rate_factor, kwargs=undecayed),
        ParameterGroup(pattern="*", max_axes=1, kwargs=undecayed),
        *(ParameterGroup(pattern=pattern, kwargs=undecayed) for pattern in without_decay),
    )


def check_groups(params: Arrays, groups: Sequence[ParameterGroup]) -> None:
    """Checks that every group has parameters.

    Raises:
      ValueError: for a pattern that matches none, or only those of groups before it.
    """
    used = set(group_names(params, groups).values())
    for index, group in enumerate(groups):
        if str(index) not in used:
            axes = f" of up to {group.max_axes} axes" if group.max_axes is not None else ""
            raise ValueError(
                f"optimizer.groups: pattern {group.pattern!r} matches no parameter{axes} that no "
                f"group before it has; parameters are named as {', '.join(list(params)[-2:])}"
            )


def check_hyperparameters(algorithm: Part, names: Sequence[str]) -> None:
    """Checks that an algorithm takes what a schedule moves.

    Raises:
      ValueError: naming the hyperparameter.
    """
    factory = resolve(algorithm.name, "algorithm")
    others = dict.fromkeys((name for name in names if name != "learning_rate"), 0.0)
    try:
        bind(factory, others, f"algorithm {algorithm.name}")
    except ValueError as error:
        raise ValueError(
            f"the schedule moves {', '.join(others)}, but {error}; for one_cycle set "
            "schedule.kwargs.cycle_beta1=False (SGD has cycle_momentum)"
        ) from error


def is_elementwise(algorithm: Part) -> bool:
    """Returns whether what an algorithm makes of a value depends on no other value.

    It may depend on the dtype and the number of axes of the array and on the end of its name
    (`decay_mask`), but on nothing else of it.
    """
    known = torch_adam, torch_adamw, torch_sgd
    return resolve(algorithm.name, "algorithm") in known


def group_names(params: Arrays, groups: Sequence[ParameterGroup]) -> dict[str, str]:
    """Returns which group each parameter is in: the first that it fits, or the rest."""

    def label(path: str, axes: int) -> str:
        fits = (
            str(index)
            for index, group in enumerate(groups)
            if fnmatch.fnmatchcase(path, group.pattern)
            and (group.max_axes is None or axes <= group.max_axes)
        )
        return next(fits, "rest")

    return {path: label(path, jnp.ndim(array)) for path, array in params.items()}


def moving_average(average: Arrays, new: Arrays, decay: float) -> Arrays:
    """Returns `decay * average + (1 - decay) * new` for every array.

    Source: `ModelEma` of Alibaba-MIIL/ASL; no warm-up and no bias correction.
    """
    return jax.tree.map(lambda a, n: decay * a + (1 - decay) * n, average, new)
