"""How programs are compiled: options of XLA, and the precision of products."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
from jax.sharding import Mesh

from mljax.config.schema import MatmulPrecision

Function = TypeVar("Function", bound=Callable[..., Any])

_ON_CPU = {
    # Convolutions by Eigen: those of the default take up to three times as long for the gradient
    # of 3 x 3 filters.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,"
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    # The pass takes away the barriers that keep apart what is computed again for the backward pass
    # from its first computation, so that everything is kept after all.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}

# The first leaves out routines that add in no fixed order. Of the others, the quickest of a trial
# would be taken, which is not the same one each time: hence the second.
_DETERMINISTIC_ON_GPU = {"xla_gpu_deterministic_ops": "True", "xla_gpu_autotune_level": "0"}


def compiler_options(mesh: Mesh, *, deterministic: bool = False) -> dict[str, str]:
    """Returns options for `jax.jit`.

    On CPUs they are those that the installed jaxlib knows of the quickest ones.

    Args:
      mesh: the devices.
      deterministic: see `TrainConfig`.

    Raises:
      ValueError: for a GPU's jaxlib that knows no deterministic programs.
    """
    platform = mesh.devices.flat[0].platform
    if platform == "cpu":
        return {name: value for name, value in _ON_CPU.items() if _is_known(name, value)}
    if platform != "gpu" or not deterministic:
        return {}
    for name, value in _DETERMINISTIC_ON_GPU.items():
        if not _is_known(name, value):
            raise ValueError(
                f"train.deterministic: the installed jaxlib has no option {name}, which it is "
                "asked by; install another, or leave the field out"
            )
    return _DETERMINISTIC_ON_GPU


@functools.cache
def _is_known(name: str, value: str) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def at_precision(precision: MatmulPrecision, function: Function) -> Function:
    """Returns the function with the precision of its products; `default` leaves it to jax.

    Under `jax.jit`, products are traced with it, so that it is part of the program.
    """
    if precision == "default":
        return function

    @functools.wraps(function)
    def precise(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return cast(Function, precise)
