"""What is counted in a program that was compiled for a GPU."""

import jax

from benchmarks.abstract_step import lower_step
from benchmarks.gpu_program import Share, kernels
from mljax.devices.mesh import make_mesh

PROGRAM = """HloModule jit_step

%cut (buffer: f32[1,100]) -> f32[4,5] {
  %buffer = f32[1,100]{1,0} parameter(0)
  %flat = f32[100]{0} bitcast(%buffer)
  %slice = f32[20]{0} slice(%flat), slice={[20:40]}
  ROOT %shaped = f32[4,5]{1,0} bitcast(%slice)
}

%half (buffer: f32[1,100], kernel: f32[4,5]) -> (bf16[4,5], pred[4]) {
  %buffer.1 = f32[1,100]{1,0} parameter(0)
  %kernel.1 = f32[4,5]{1,0} parameter(1)
  %part = f32[1,20]{1,0} slice(%buffer.1), slice={[0:1], [0:20]}
  %all = f32[1,100]{1,0} negate(%buffer.1)
  ROOT %both = (bf16[4,5]{1,0}, pred[4]{0}) tuple(%part, %all, %kernel.1)
}

ENTRY %main (buffer.2: f32[1,100]) -> f32[4,5] {
  %buffer.2 = f32[1,100]{1,0} parameter(0)
  %kernel = f32[4,5]{1,0} fusion(%buffer.2), kind=kLoop, calls=%cut, metadata={op_name="jit(step)/jit(_cut)/slice"}
  %pair = (bf16[4,5]{1,0}, pred[4]{0}) fusion(%buffer.2, %kernel), kind=kLoop, calls=%half, metadata={op_name="jit(step)/mul"}
  %first = bf16[4,5]{1,0} get-tuple-element(%pair), index=0
  %conv = (bf16[4,5]{1,0}, u8[64]{0}) custom-call(%first, %kernel), custom_call_target="__cudnn$convForward", metadata={op_name="jit(step)/jvp()/conv"}
  ROOT %out = f32[4,5]{1,0} copy(%kernel), metadata={op_name="jit(step)/jvp()/copy"}
}
"""  # noqa: E501


def test_kernels_are_counted_by_kind_with_what_they_read_and_write():
    assert kernels(PROGRAM) == {
        # A slice of 20 values is read and written.
        "copies": Share(kernels=2, bytes=2 * 80 + 2 * 80),
        # One reads all of the buffer though it slices it, too.
        "optimizer": Share(kernels=1, bytes=400 + 80 + 40 + 4),
        # Without the scratch memory of 64 bytes.
        "convolutions": Share(kernels=1, bytes=40 + 80 + 40),
    }


def test_a_packed_step_is_lowered_from_shapes_alone():
    shapes = {"images": 4, "side": 32, "dtype": "bfloat16", "channel_multiple": 8}
    lowered = lower_step(make_mesh(jax.devices()[:1]), "resnet18", **shapes)
    # By path, ResNet-18's state has hundreds of arrays.
    assert len(jax.tree.leaves(lowered.args_info)) < 40
