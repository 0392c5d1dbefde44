"""The kernels for GPUs: on a GPU where there is one, by Triton's interpreter where Triton is installed, else skipped.

In all cases the machine code for three kinds of GPU is made, which needs none, where Triton is installed.
"""

import importlib.util
import inspect
import os
import subprocess
import sys

import pytest
import torch

from dlbook.layers import scan_triton
from dlbook.layers.scan import has_kernel, scan, scan_sequential
from dlbook.layers.scan_triton import linear_scan
from dlbook.layers.selective_scan import readable, selective_scan
from tools import ROOT

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = HAS_TRITON and os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
runs = pytest.mark.skipif(
    not (INTERPRETED or (HAS_TRITON and torch.cuda.is_available())), reason="needs a GPU or Triton's interpreter"
)
# what Triton 3.9 says once of a default that a later version will change
pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")

# (L, ...): one axis, two, three and four; more than one program and more than one round of steps in each direction
SHAPES = [(1,), (19,), (11, 3), (17, 2, 5), (8, 3, 2, 3)]
B, L, D, N = 2, 11, 5, 3


@pytest.fixture(autouse=True)
def small_programs(monkeypatch):
    """So that a few numbers are several programs; on a GPU they have their own sizes."""
    if INTERPRETED:
        for name, value in {"STEPS": 8, "CHANNELS": 4, "SELECTIVE_STEPS": 4, "HELD": 32}.items():
            monkeypatch.setattr(scan_triton, name, value)


@pytest.fixture
def taken(monkeypatch):
    """As if the interpreter were a GPU."""
    if INTERPRETED:
        monkeypatch.setattr("dlbook.layers.scan.has_kernel", lambda x: True)
        monkeypatch.setattr("dlbook.layers.selective_scan.has_kernel", lambda x: True)


def draw(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def selective(sizes=(B, L, D, N), dtype=torch.float64):
    batch, length, width, n = sizes
    shapes = (batch, length, width), (batch, length, width), (width, n), *[(batch, length, n)] * 2, (batch, n, width)
    x, dt, A, B, C, h0 = (draw(*shape, seed=i) for i, shape in enumerate(shapes))
    return [part.to(dtype).requires_grad_() for part in (x, dt.exp(), -A.exp(), B, C, h0)]


@runs
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backwards", [False, True], ids=["on", "back"])
@pytest.mark.parametrize("started", [False, True], ids=["from 0", "started"])
def test_the_kernel_is_the_recurrence(shape, backwards, started):
    a, b = draw(*shape, seed=0).tanh(), draw(*shape, seed=1)
    h0 = draw(*shape[1:], seed=2) if started else None
    if not started:
        a[-1 if backwards else 0] = torch.nan  # has nothing to act on
    turned = [x.flip(0) if backwards else x for x in (a, b)]
    expected = scan_sequential(*turned, h0, dim=0)
    h = linear_scan(a, b, h0, backwards=backwards)
    torch.testing.assert_close(h.flip(0) if backwards else h, expected, rtol=1e-12, atol=1e-12)


@runs
def test_numbers_may_lie_anywhere_in_memory():
    b = draw(3, 19, 5, seed=0).transpose(0, 1)  # (19, 3, 5), as a batch that comes first leaves it
    a = draw(19, 1, 5, seed=1).tanh().expand(19, 3, 5)
    h0 = draw(5, 3, seed=2).t()
    torch.testing.assert_close(linear_scan(a, b, h0), scan_sequential(a, b, h0, dim=0))
    a, b = draw(19, 8, seed=1).tanh()[:, ::2], draw(4, 38, seed=2)[:, ::2].t()
    torch.testing.assert_close(linear_scan(a, b), scan_sequential(a, b, dim=0))


@runs
def test_scan_takes_it_with_gradients_and_their_gradients(taken, monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(options["backwards"])
        return linear_scan(*arguments, **options)

    monkeypatch.setattr(scan_triton, "linear_scan", counted)
    inputs = [draw(2, 9, 3, seed=0).tanh(), draw(2, 9, 3, seed=1), draw(2, 3, seed=2)]
    for x in inputs:
        x.requires_grad_()
    weights = draw(2, 9, 3, seed=3)

    def results(function):
        h = function(*inputs)
        grads = torch.autograd.grad((h * weights).square().sum(), inputs, create_graph=True)
        return h, *grads, *torch.autograd.grad(sum(grad.square().sum() for grad in grads), inputs)

    for mine, wanted in zip(results(scan), results(scan_sequential), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-10)
    assert calls[:2] == [False, True]


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scan_in_fewer_digits(taken, dtype):
    a, b = draw(2, 21, 3, seed=0).tanh().to(dtype), draw(2, 21, 3, seed=1, dtype=dtype)
    h = scan(a, b)
    assert h.dtype == dtype
    rtol = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(h.double(), scan_sequential(a.double(), b.double()), rtol=rtol, atol=rtol)


@runs
@pytest.mark.parametrize("sizes", [(B, L, D, N), (1, 1, 1, 1), (2, 8, 9, 2), (0, 3, 2, 2), (2, 0, 3, 2)], ids=str)
def test_the_selective_scan_is_the_readable_one_with_gradients(taken, sizes):
    given = selective(sizes)
    one, two = selective_scan(*given), readable(*given)
    weights = [draw(*part.shape, seed=8 + i) for i, part in enumerate(one)]
    for mine, wanted in zip(one, two, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-11)
    grads = [
        torch.autograd.grad(sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True)), given)
        for parts in (one, two)
    ]
    for mine, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-10)


@runs
def test_the_selective_scan_keeps_one_state_in_several_steps(taken):
    given = selective((2, 256, 8, 16), torch.float32) if DEVICE == "cuda" else selective((1, 32, 2, 3), torch.float32)
    kept = 0

    def count(tensor):
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        selective_scan(*given)
    every = given[0].numel() * given[2].shape[1]  # B L D N
    assert kept < sum(part.numel() for part in given) + 1.2 * every / scan_triton.SELECTIVE_STEPS + 1000 / 4


@runs
def test_autocast_and_16_bits_are_computed_in_float32(taken):
    given = selective(dtype=torch.bfloat16)
    with torch.autocast(DEVICE, torch.bfloat16):
        y, h = selective_scan(*given)
    assert (y.dtype, h.dtype) == (torch.bfloat16, torch.float32)
    exact, state = readable(*(x.double() for x in given))
    torch.testing.assert_close(y.double(), exact, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(h.double(), state, rtol=1e-5, atol=1e-5)


@runs
def test_nan_stays_in_its_row_and_does_not_go_back_in_time(taken):
    given = [x.detach() for x in selective()]
    given[0][1, 6] = torch.nan
    y, h = selective_scan(*given)
    assert not y[0].isnan().any()
    assert not h[0].isnan().any()
    assert not y[1, :6].isnan().any()
    assert y[1, 6:].isnan().all()


@runs
def test_gradients_of_its_gradients_are_refused(taken):
    given = selective()
    grads = torch.autograd.grad(selective_scan(*given)[0].square().sum(), given, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grads[0].sum().backward()


def test_a_processor_has_no_kernel_and_neither_has_a_number_that_is_not_real():
    assert not has_kernel(torch.zeros(3))
    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (7, 5):
        assert has_kernel(torch.zeros(3, device="cuda")) == HAS_TRITON
        assert not has_kernel(torch.zeros(3, dtype=torch.complex64, device="cuda"))


CONSTANTS = {
    "_linear_scan": {"STARTED": True, "BACKWARDS": True, "T": scan_triton.STEPS, "W": scan_triton.CHANNELS},
    "_selective_forward": {"T": scan_triton.SELECTIVE_STEPS, "N": 16, "W": 16},
    "_selective_backward": {"T": scan_triton.SELECTIVE_STEPS, "N": 16, "W": 16},
}


@pytest.mark.skipif(not HAS_TRITON or INTERPRETED, reason="needs Triton, and not its interpreter")
@pytest.mark.parametrize("capability", [75, 80, 90], ids=["T4", "A100", "H100"])
@pytest.mark.parametrize("name", CONSTANTS)
def test_it_becomes_machine_code_without_a_gpu(name, capability, monkeypatch, tmp_path):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel, constants = getattr(scan_triton, name), CONSTANTS[name]
    arguments = inspect.signature(kernel.fn).parameters
    kinds = {
        argument: "constexpr" if argument in constants else "*fp32" if argument.endswith("_ptr") else "i32"
        for argument in arguments
    }
    compiled = triton.compile(ASTSource(kernel, kinds, constants), target=GPUTarget("cuda", capability, 32))
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared < 48 * 1024  # what any GPU has for a program


@pytest.mark.skipif(not HAS_TRITON or INTERPRETED, reason="needs Triton, and is what starts its interpreter")
def test_all_of_it_by_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
