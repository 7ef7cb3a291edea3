"""What the benchmark of several devices counts in a program, and what it predicts from that."""

import math

import pytest

from benchmarks.scaling import LINKS, Sent, count_sent, images_per_second

PROGRAM = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (x: f32[2,3]) -> (f32[3], bf16[4]) {
  %x = f32[2,3]{1,0} parameter(0)
  %all-reduce = f32[3]{0} all-reduce(%x), channel_id=1, to_apply=%add, metadata={op_name="jit"}
  %scaled = f32[3]{0} multiply(%all-reduce, %all-reduce)
  %pair = (f32[3]{0}, pred[]) all-reduce(%scaled, %x), channel_id=2, to_apply=%add
  %lone = bf16[4]{0} all-reduce(%x), channel_id=3, to_apply=%add
  %first = f32[3]{0} get-tuple-element(%pair), index=0
  ROOT %out = (f32[3]{0}, bf16[4]{0}) tuple(%first, %lone)
}
"""


def test_all_reduces_are_counted_with_their_bytes_and_their_longest_chain():
    assert count_sent(PROGRAM) == Sent(all_reduces=3, size=33, in_a_row=2, waited_for=12)


def test_other_operations_between_devices_are_named():
    moved = PROGRAM.replace("get-tuple-element(", "collective-permute(")
    assert count_sent(moved).others == ("collective-permute",)


def test_collectives_in_a_loop_are_an_error():
    looped = PROGRAM.replace("= f32[] add(", "= f32[] all-reduce(")
    with pytest.raises(ValueError, match="in a loop or function"):
        count_sent(looped)


def test_throughput_falls_with_what_is_sent():
    nothing = Sent(all_reduces=0, size=0, in_a_row=0, waited_for=0)
    given = {"images": 10, "seconds": 0.5}
    assert images_per_second(nothing, 1, "NVLink", **given) == (20, 20)
    rate, message = LINKS["100 Gb/s"]
    sent = Sent(all_reduces=5, size=int(rate), in_a_row=2, waited_for=0)
    slower, faster = images_per_second(sent, 4, "100 Gb/s", **given)
    assert math.isclose(faster, 40 / (0.5 + 2 * 4 * message))
    assert math.isclose(slower, 40 / (0.5 + 2 * 4 * message + 1.5))
