"""Mamba, RWKV and the scan beneath them: a training step against libraries' with the same weights, and against loops.

mambapy, the fastest other Mamba in plain PyTorch, is compared with where it is installed (`pip install mambapy`); the
book does not require it.
"""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Row, compare
from dlbook.layers.scan import scan, scan_sequential
from dlbook.models import mamba, rwkv

VOCABULARY, WIDTH, LAYERS, BATCH = 64, 64, 2, 2
SIZE = f"{WIDTH} wide, {LAYERS} layers, batch {BATCH}"
# The largest ratios wanted, by what is compared with; a library's Python loop over time is slower the longer it is.
MAMBA_TRANSFORMERS, MAMBA_MAMBAPY, RWKV_TRANSFORMERS, SCAN = 1 / 8, 1 / 1.3, 1 / 2, 1 / 2


def run(rounds: int, length: int = 1024, scans: tuple[int, ...] = (256, 1024, 4096, 8192)) -> list[Row]:
    """All pairs."""
    torch.manual_seed(0)
    rows = [mamba_and_transformers(min(rounds, 3), length)]  # theirs takes ten seconds a step
    if importlib.util.find_spec("mambapy"):
        rows.append(mamba_and_mambapy(rounds, length))
    rows.append(rwkv_and_transformers(min(rounds, 9), length))
    return rows + [scan_and_loop(rounds, steps) for steps in scans]


def mamba_and_transformers(rounds: int, length: int) -> Row:
    """Language models."""
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, time_step_rank=WIDTH // 16)
    ours = mamba.Mamba(mamba.MambaConfig(VOCABULARY, WIDTH, LAYERS))
    peer = MambaForCausalLM(config).train()  # in training mode it keeps no cache
    ours.load_state_dict(mamba.convert_transformers(peer.state_dict()))
    name = f"Mamba / transformers ({SIZE}, {length} steps)"
    return language_models(name, ours, peer, length, MAMBA_TRANSFORMERS, rounds)


def rwkv_and_transformers(rounds: int, length: int) -> Row:
    """Language models."""
    from transformers import RwkvConfig, RwkvForCausalLM

    config = RwkvConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        attention_hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        use_cache=False,
    )
    ours = rwkv.RWKV(rwkv.RWKVConfig(VOCABULARY, WIDTH, LAYERS))
    peer = RwkvForCausalLM(config).train()
    ours.load_state_dict(rwkv.convert_transformers(peer.state_dict()))
    name = f"RWKV / transformers ({SIZE}, {length} steps)"
    return language_models(name, ours, peer, length, RWKV_TRANSFORMERS, rounds)


def mamba_and_mambapy(rounds: int, length: int) -> Row:
    """The blocks alone, which is what mambapy has."""
    from mambapy.mamba import Mamba, MambaConfig

    ours = nn.Sequential(*(mamba.MambaBlock(WIDTH) for _ in range(LAYERS)))
    peer = Mamba(MambaConfig(d_model=WIDTH, n_layers=LAYERS))
    weights = {f"backbone.{name}": tensor for name, tensor in peer.state_dict().items()}
    ours.load_state_dict(
        {name.removeprefix("blocks."): tensor for name, tensor in mamba.convert_transformers(weights).items()}
    )
    x = torch.randn(BATCH, length, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), peer(x), rtol=1e-4, atol=1e-4)
    steps = (step(model, lambda model=model: model(x).square().mean()) for model in (ours, peer))
    name = f"Mamba's blocks / mambapy ({SIZE}, {length} steps), training step"
    return compare(name, *steps, target=MAMBA_MAMBAPY, rounds=rounds)


def language_models(name: str, ours: nn.Module, peer: nn.Module, length: int, target: float, rounds: int) -> Row:
    """A training step of both, after a look whether they agree."""
    tokens = torch.randint(VOCABULARY, (BATCH, length + 1))
    x, y = tokens[:, :-1], tokens[:, 1:]
    with torch.no_grad():
        torch.testing.assert_close(ours(x), peer(x).logits, rtol=1e-4, atol=1e-4)

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    functions = step(ours, lambda: loss(ours(x))), step(peer, lambda: loss(peer(x).logits))
    return compare(f"{name}, training step", *functions, target=target, rounds=rounds)


def step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One training step of one side."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def once() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return once


def scan_and_loop(rounds: int, length: int) -> Row:
    """Forward and backward, of a state of 128 numbers for each sequence."""
    a, b = torch.rand(BATCH, length, 128), torch.randn(BATCH, length, 128)
    weights = torch.randn_like(b)
    inputs = a.requires_grad_(), b.requires_grad_()
    repeats = max(1, 2**15 // length)  # a call should take a tenth of a second

    def gradients(function: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(*inputs), inputs, weights)

    for mine, wanted in zip(gradients(scan), gradients(scan_sequential), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)

    def several(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def once() -> None:
            for _ in range(repeats):
                gradients(function)

        return once

    name = f"scan / loop ({length} steps, {BATCH} x 128 channels), forward and backward"
    return compare(name, several(scan), several(scan_sequential), target=SCAN, rounds=rounds)
