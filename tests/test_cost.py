"""Seconds, bytes and how they grow, on computations whose costs are known."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dlbook.cost import exponent, peak_bytes, seconds, tensor_bytes
from tools import ROOT

MEGABYTE = torch.zeros(250_000)  # of float32


def test_a_peak_counts_what_lives_together():
    def one_after_the_other():
        for _ in range(5):
            MEGABYTE.clone()  # freed at once

    def all_kept():
        return [MEGABYTE.clone() for _ in range(5)]

    def three_then_one():
        three = [MEGABYTE.clone() for _ in range(3)]
        del three
        return MEGABYTE.clone()

    assert [peak_bytes(f) for f in (one_after_the_other, all_kept, three_then_one)] == [10**6, 5 * 10**6, 3 * 10**6]


def test_a_peak_leaves_out_what_was_there_and_what_is_not_copied():
    assert peak_bytes(lambda: MEGABYTE.view(500, 500).T[3:]) == 0


def test_a_peak_sees_what_a_kernel_needs_only_inside():
    q = torch.zeros(1, 1, 512, 64)
    result = q.numel() * 4
    assert result < peak_bytes(lambda: F.scaled_dot_product_attention(q, q, q)) < 512 * 512 * 4 + result


def test_a_peak_with_gradients_counts_what_is_kept_for_them():
    x = torch.ones(1000, requires_grad=True)
    with torch.no_grad():
        without = peak_bytes(lambda: x.exp().exp().exp())
    assert (without, peak_bytes(lambda: x.exp().exp().exp())) == (8000, 12000)


ATTENTION = """
from pathlib import Path

import torch

from dlbook.cost import peak_bytes
from dlbook.layers.attention import attention
from tools import ROOT


def resident(line):
    return int(Path("/proc/self/status").read_text().partition(line)[2].split()[0]) * 1024


q, k, v = torch.randn(3, 1, 3072, 16)
attention(q, k, v)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = resident("VmRSS:")
attention(q, k, v)
print(resident("VmHWM:") - before, peak_bytes(lambda: attention(q, k, v)))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a process's peak")
def test_a_peak_is_what_the_operating_system_sees():
    # Large pieces come from the system and go back to it: none is left over from before.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", ATTENTION], env=env, capture_output=True, text=True, cwd=ROOT)
    if "/proc/self" in done.stderr:
        pytest.skip("not allowed here")
    system, found = map(int, done.stdout.split())
    assert found == pytest.approx(system, rel=0.2)


def test_a_peak_says_nothing(capfd):
    peak_bytes(lambda: torch.ones(3))
    sys.stderr.write("still there")
    assert capfd.readouterr() == ("", "still there")


def test_a_failure_restores_the_error_stream(capfd):
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 // 0)
    sys.stderr.write("still there")
    assert capfd.readouterr().err.endswith("still there")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_peak_on_a_gpu():
    assert peak_bytes(lambda: torch.zeros(2**20, device="cuda") + 1, device="cuda") == 2 * 2**22


def test_a_device_without_an_account_is_refused():
    with pytest.raises(ValueError, match="got meta"):
        peak_bytes(lambda: None, device="meta")


def test_seconds_are_taken_in_turns_by_one_thread():
    order, threads = [], torch.get_num_threads()
    torch.set_num_threads(2)

    def call(name):
        order.append((name, torch.get_num_threads()))
        sum(range(4 * 10**6))  # long enough for a sample

    took = seconds({"a": lambda: call("a"), "b": lambda: call("b")}, rounds=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert "".join(name for name, _ in order) == "ababba"
    assert {used for _, used in order} == {1}
    assert [len(times) for times in took.values()] == [2, 2]


def test_seconds_of_what_is_short_are_those_of_one_call():
    took = seconds({"one": lambda: sum(range(1000)), "ten": lambda: sum(range(10_000))}, rounds=5)
    assert 4 < min(took["ten"]) / min(took["one"]) < 25


@pytest.mark.parametrize(("calls", "rounds"), [({}, 3), ({"a": int}, 0)])
def test_nothing_to_time_is_refused(calls, rounds):
    with pytest.raises(ValueError, match="at least one round"):
        seconds(calls, rounds)


def test_bytes_of_a_state():
    state = {"h": [torch.zeros(2, 3, dtype=torch.bfloat16)], "rest": (None, torch.zeros(7, dtype=torch.int64))}
    assert tensor_bytes(state) == 2 * 6 + 8 * 7
    with pytest.raises(ValueError, match="got str"):
        tensor_bytes([torch.zeros(2), "state"])


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_an_exponent_is_found(power):
    sizes = [256, 512, 8192]
    assert exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power, abs=1e-9)


@pytest.mark.parametrize(("sizes", "costs"), [([1, 2], [1]), ([2, 2], [1, 3]), ([1, 2], [0, 3]), ([0, 2], [1, 3])])
def test_an_exponent_of_what_has_none_is_refused(sizes, costs):
    with pytest.raises(ValueError, match="at least two"):
        exponent(sizes, costs)
