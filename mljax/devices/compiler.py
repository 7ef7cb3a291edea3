"""Options of XLA that are better than its defaults for these networks."""

import functools

import jax
from jax.sharding import Mesh

_ON_CPU = {
    # Convolutions by Eigen: those of the default take three times as long for the gradients of
    # 3 x 3 kernels.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,"
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    # The pass takes away the barriers that keep apart what is computed again for the backward pass
    # from its first computation, so that everything is kept after all.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """Returns options for `jax.jit`: on CPUs those that the installed jaxlib knows, else none."""
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {name: value for name, value in _ON_CPU.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: str) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
