"""dlbook.device: the device, its threads, and precision."""

import os

import pytest
import torch

from dlbook import device as module
from dlbook.device import autocast, available_cores, best_device, describe, tune


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_best_device_prefers_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == torch.device(expected)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 7),
        ("300000 100000", 3),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("900000 100000", 7),
        (None, 7),
    ],
)
def test_available_cores_keeps_to_a_container_limit(monkeypatch, tmp_path, limit, expected):
    quota = tmp_path / "cpu.max"
    if limit:
        quota.write_text(limit + "\n")
    monkeypatch.setattr(module, "CPU_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)), raising=False)
    assert available_cores() == expected


@pytest.fixture
def torch_settings():
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize(("threads", "cores", "expected"), [(5, 3, 3), (2, 3, 2)])
def test_tune_lowers_too_many_threads_and_leaves_fewer_alone(monkeypatch, torch_settings, threads, cores, expected):
    torch.set_num_threads(threads)
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    tune(torch.device("cpu"))
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize(("kind", "expected"), [("cuda", "high"), ("cpu", "highest")])
def test_tune_allows_tf32_on_cuda_only(torch_settings, kind, expected):
    torch.set_float32_matmul_precision("highest")
    tune(torch.device(kind))
    assert torch.get_float32_matmul_precision() == expected


def test_describe_names_threads_and_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert describe(torch.device("cuda")) == "cuda, Tesla T4"
    assert describe(torch.device("mps")) == "mps"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert describe(torch.device("cpu")) == "cpu, 2 threads"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert describe(torch.device("cpu")) == "cpu, 1 thread"


def test_autocast_float32_changes_nothing():
    with autocast(torch.device("cpu"), "float32"):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast_refuses_16_bits_on_the_cpu_and_says_why(precision):
    with pytest.raises(ValueError, match="15 to 23 times slower"):
        autocast(torch.device("cpu"), precision)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast_passes_the_precision_on_to_cuda(monkeypatch, precision):
    asked = {}
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: asked.update(kind=kind, dtype=dtype))
    autocast(torch.device("cuda"), precision)
    assert asked == {"kind": "cuda", "dtype": getattr(torch, precision)}


def test_autocast_refuses_an_unknown_precision():
    with pytest.raises(ValueError, match=r"float32, bfloat16, float16.*'half'"):
        autocast(torch.device("cuda"), "half")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_autocast_computes_in_16_bits_on_a_gpu(precision):
    x = torch.ones(2, 3, device="cuda")
    with autocast(x.device, precision):
        assert (x @ x.T).dtype == getattr(torch, precision)
