"""What the benchmark of a GPU makes of a program and its profile, here on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.device_time import device_ms, instruction_kinds
from benchmarks.gpu import ABORT_OPTIONS, cases


def test_the_time_of_a_step_is_split_by_what_its_instructions_are():
    kernel, images = np.ones((3, 3, 4, 8), np.float32), np.ones((4, 16, 16, 4), np.float32)

    def loss(kernel):
        x = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.tanh(x.mean((1, 2)) @ jnp.ones((8, 8))).sum()

    def step(kernel):
        return kernel - 0.1 * jax.grad(loss)(kernel) / jnp.linalg.norm(kernel)

    program = jax.jit(step).lower(kernel).compile()
    kinds = instruction_kinds(program.as_text(), training=True)
    assert {"convolutions", "products", "reductions", "optimizer"} <= set(kinds.values())
    assert "optimizer" not in instruction_kinds(program.as_text(), training=False).values()
    found = device_ms(lambda: jax.block_until_ready(program(kernel)), kinds, repeats=2)
    assert found["convolutions"] > 0
    assert set(found) <= set(kinds.values())


def test_what_a_branch_calls_is_counted_once():
    def step(x):
        return jax.lax.cond(x[0] > 0, lambda x: x * 2, lambda x: x - 1, x)

    program = jax.jit(step).lower(np.ones(4, np.float32)).compile().as_text()
    branches = [line.split()[0] for line in program.splitlines() if " conditional(" in line]
    assert branches
    kinds = instruction_kinds(program, training=True)
    assert kinds and not {name.removeprefix("%") for name in branches} & set(kinds)


def test_the_cases_of_both_sizes_are_of_the_same_kinds():
    full, tiny = (list(cases(tiny=tiny)) for tiny in (False, True))
    assert {kind for kind, *_ in full} == {kind for kind, *_ in tiny}
    names = [case[:2] for case in full]
    assert len(set(names)) == len(names)
    assert sum(kind == "abort" for kind, *_ in full) == len(ABORT_OPTIONS)
