"""Every optimiser against torch.optim, or its paper, over 100 steps; all its ways to compute a step against each other."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlbook.train import fit
from dlbook.train.optimizers import SGD, Adam, AdamW, Lion, Muon, RMSprop, sgd
from dlbook.train.optimizers.muon import COEFFICIENTS, orthogonalize

SHAPES = [(5, 3), (7,), ()]
MATRICES = [(5, 3), (4, 6), (5, 3), (1, 7)]
LARGEST = {torch.float32: 1e-6, torch.float64: 1e-12}  # difference to torch after 100 steps, by the largest number

# The options of PyTorch's own tests of its optimisers (torch/testing/_internal/common_optimizers.py), and some more.
FOR_ADAM = [
    {},
    {"lr": 0.01},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "maximize": True},
    {"weight_decay": 0.1, "amsgrad": True},
    {"maximize": True},
    {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3},
    {"lr": 0.02, "betas": (0.0, 0.0), "weight_decay": 0.0},
]
CASES = [
    *(
        (ours, peer, options)
        for ours, peer in ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW))
        for options in FOR_ADAM
    ),
    *(
        (SGD, torch.optim.SGD, options)
        for options in (
            {},
            {"lr": 0.01},
            {"lr": torch.tensor(0.001)},
            {"weight_decay": 0.5},
            {"momentum": 0.9},
            {"weight_decay": 0.1, "maximize": True},
            {"momentum": 0.9, "dampening": 0.5},
            {"momentum": 0.9, "weight_decay": 0.1},
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
            {"momentum": 0.9, "nesterov": True, "maximize": True, "lr": 0.01},
        )
    ),
    *(
        (RMSprop, torch.optim.RMSprop, options)
        for options in (
            {},
            {"lr": 1e-3},
            {"weight_decay": 0.1},
            {"maximize": True},
            {"weight_decay": 0.1, "centered": True},
            {"maximize": True, "weight_decay": 0.1},
            {"weight_decay": 0.1, "centered": True, "momentum": 0.1},
            {"weight_decay": 0.1, "centered": True, "momentum": 0.1, "maximize": True},
            {"momentum": 0.9, "alpha": 0.9, "eps": 1e-3},
        )
    ),
]
WAYS = [{"foreach": False}, {"foreach": True}, {"fused": True}, {}]
WAY_NAMES = ["single", "foreach", "fused", "default"]


def has_kernel(kind) -> bool:
    return kind in (SGD, Adam, AdamW)


def each_way(cases):
    """The cases, each with every way that its optimiser has."""
    return [
        pytest.param(*case, way, id=f"{case[0].__name__}-{case[-1]}-{way_name}")
        for case in cases
        for way, way_name in zip(WAYS, WAY_NAMES, strict=True)
        if "fused" not in way or has_kernel(case[0])
    ]


def parameters(shapes=SHAPES, dtype=torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def go(optimizer: torch.optim.Optimizer, params: list[Tensor], steps: int, seed: int = 1) -> None:
    """Steps with gradients that depend on where the parameters are and, at random, on the step."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            at_random = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
            p.grad = 2 * (p.detach() - at_random) + p.detach().cos()
        optimizer.step()


def difference(ours: list[Tensor], peers: list[Tensor]) -> float:
    largest = max(p.abs().max().item() for p in peers)
    return max((a - b).abs().max().item() for a, b in zip(ours, peers, strict=True)) / largest


@pytest.mark.parametrize("dtype", LARGEST, ids=["float32", "float64"])
@pytest.mark.parametrize(("ours", "peer", "options", "way"), each_way(CASES))
def test_a_hundred_steps_are_those_of_torch(ours, peer, options, way, dtype):
    a, b = parameters(dtype=dtype), parameters(dtype=dtype)
    go(ours(a, **options, **way), a, 100)
    go(peer(b, **options, foreach=False), b, 100)
    start = parameters(dtype=dtype)
    assert difference(b, start) > 1e-3, "nothing moved: the comparison is void"
    assert difference(a, b) <= LARGEST[dtype]


@pytest.mark.parametrize("ours", [SGD, RMSprop, Adam, AdamW])
def test_defaults_are_those_of_torch(ours):
    peer = getattr(torch.optim, ours.__name__)(parameters()).defaults
    mine = ours(parameters()).defaults
    assert mine == {key: peer[key] for key in mine if key in peer} | {"fused": None}


FOR_MUON = [
    {},
    {"lr": 0.01},
    {"lr": torch.tensor(0.001, dtype=torch.float64)},
    {"weight_decay": 0.2},
    {"momentum": 0.8},
    {"ns_steps": 6},
    {"ns_coefficients": (3.4, -4.7, 2.0)},
    {"nesterov": False},
    {"lr": 0.01, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": 0.01, "adjust_lr_fn": "original"},
]
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")


@needs_muon
@pytest.mark.parametrize("dtype", LARGEST, ids=["float32", "float64"])
@pytest.mark.parametrize("options", FOR_MUON, ids=str)
def test_a_hundred_steps_of_muon_are_those_of_torch(options, dtype):
    a, b = parameters(MATRICES, dtype), parameters(MATRICES, dtype)
    go(Muon(a, **options, foreach=False), a, 100)
    go(torch.optim.Muon(b, **options), b, 100)
    assert difference(b, parameters(MATRICES, dtype)) > 1e-3
    assert difference(a, b) <= LARGEST[dtype]


@needs_muon
def test_defaults_of_muon_are_those_of_torch():
    peer = torch.optim.Muon(parameters(MATRICES)).defaults
    assert {key: Muon(parameters(MATRICES)).defaults[key] for key in peer} == peer


@pytest.mark.parametrize("options", [*FOR_MUON, {"maximize": True}], ids=str)
def test_matrices_of_one_shape_are_orthogonalised_together(options):
    a, b = parameters(MATRICES, torch.float64), parameters(MATRICES, torch.float64)
    go(Muon(a, **options, dtype=None), a, 100)
    go(Muon(b, **options, dtype=None, foreach=False), b, 100)
    assert difference(a, b) <= 1e-12


def test_large_matrices_are_orthogonalised_one_by_one_on_a_cpu():
    shapes = [(170, 110), (5, 3), (170, 110), (5, 3)]
    a, b = parameters(shapes, torch.float64), parameters(shapes, torch.float64)
    go(Muon(a, lr=0.1, dtype=None), a, 3)
    go(Muon(b, lr=0.1, dtype=None, foreach=False), b, 3)
    assert difference(a, b) <= 1e-13


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (3, 5, 5), (2, 3, 7, 2)])
def test_newton_schulz_changes_the_singular_values_only(shape):
    """Against the polynomial, applied five times to the singular values of a decomposition."""
    a, b, c = COEFFICIENTS
    G = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    s = s / s.square().sum(-1, keepdim=True).sqrt()
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalize(G, dtype=None), U @ (s.unsqueeze(-1) * Vh), rtol=0, atol=1e-12)


def test_newton_schulz_brings_singular_values_near_1():
    s = torch.linspace(0.01, 1, 1000, dtype=torch.float64)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    assert 0.68 < s.min() < s.max() < 1.14  # as the docstring says
    assert orthogonalize(torch.zeros(3, 2)).abs().max() == 0


def test_lion_does_what_the_paper_writes():
    """Algorithm 2 in numpy, with the decay beside the sign."""
    (p,) = parameters([(5, 3)], torch.float64)
    theta, m = p.detach().numpy().copy(), np.zeros((5, 3))
    gradients = np.random.default_rng(0).normal(size=(100, 5, 3))
    optimizer = Lion([p], lr=0.02, betas=(0.8, 0.95), weight_decay=0.3, foreach=False)
    for g in gradients:
        p.grad = torch.tensor(g)
        optimizer.step()
        update = np.sign(0.8 * m + 0.2 * g) + 0.3 * theta
        theta, m = theta - 0.02 * update, 0.95 * m + 0.05 * g
    np.testing.assert_allclose(p.detach().numpy(), theta, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "options", [{}, {"lr": 0.01, "weight_decay": 0.5}, {"maximize": True, "betas": (0.5, 0.7)}], ids=str
)
def test_lion_is_the_same_together(options):
    a, b = parameters(dtype=torch.float64), parameters(dtype=torch.float64)
    go(Lion(a, **options), a, 100)
    go(Lion(b, **options, foreach=False), b, 100)
    assert difference(a, b) <= 1e-12


ALL = [
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    (RMSprop, {"momentum": 0.9, "centered": True}),
    (Adam, {"lr": 0.1, "amsgrad": True}),
    (AdamW, {"lr": 0.1}),
    (Lion, {"lr": 0.1}),
    (Muon, {"lr": 0.1, "dtype": None}),
]
every_one = pytest.mark.parametrize(("kind", "options"), ALL, ids=lambda value: getattr(value, "__name__", ""))
every_one_each_way = pytest.mark.parametrize(("kind", "options", "way"), each_way(ALL))


@every_one_each_way
def test_the_state_is_kept(kind, options, way):
    a = parameters(MATRICES)
    optimizer = kind(a, **options, **way)
    go(optimizer, a, 5)
    kept, b = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(a)
    go(optimizer, a, 5, seed=2)
    other = kind(b, **options, **way)
    other.load_state_dict(pickle.loads(pickle.dumps(kept)))
    go(other, b, 5, seed=2)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("kind", "options"), [c for c in ALL if c[0] is not Lion], ids=lambda v: getattr(v, "__name__", "")
)
def test_state_dicts_are_exchanged_with_torch(kind, options):
    if not hasattr(torch.optim, kind.__name__):
        pytest.skip("not in this torch")
    peer = getattr(torch.optim, kind.__name__)
    for first, second in ((kind, peer), (peer, kind)):
        a = parameters(MATRICES)
        optimizer = first(a, **shared(first, options))
        go(optimizer, a, 5)
        b = copy.deepcopy(a)
        other = second(b, **shared(second, options))
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        go(optimizer, a, 5, seed=2)
        go(other, b, 5, seed=2)
        assert difference(a, b) <= (1e-6 if kind is not Muon else 2e-2)  # torch's Muon computes in bfloat16


def shared(kind, options):
    return {key: value for key, value in options.items() if key != "dtype" or kind is Muon}


@every_one
def test_groups_have_options_of_their_own_and_parameters_without_gradient_stay(kind, options):
    a = parameters([(5, 3), (4, 6), (2, 2)])
    start = copy.deepcopy(a)
    optimizer = kind([{"params": a[:1], "lr": 0.0, "weight_decay": 0.0}, {"params": a[1:]}], **options)
    (a[0].sum() + (a[1] ** 2).sum()).backward()
    optimizer.step()
    assert torch.equal(a[0], start[0])
    assert not torch.equal(a[1], start[1])
    assert torch.equal(a[2], start[2])


@every_one_each_way
def test_a_parameter_may_join_later(kind, options, way):
    """Whose first gradient comes later than the others': each counts its own steps."""
    a, b = parameters(MATRICES[:2], torch.float64), parameters(MATRICES[:2], torch.float64)
    together, apart = kind(a, **options, **way), [kind([p], **options, **way) for p in b]
    for number in range(6):
        for p, q in zip(a[number < 3 :], b[number < 3 :], strict=True):
            p.grad, q.grad = p.detach().clone(), q.detach().clone()
        together.step()
        for one in apart:
            one.step()
    assert difference(a, b) <= 1e-14


@every_one_each_way
def test_gradients_stay_as_they_are(kind, options, way):
    for more in ({}, {"maximize": True}, {"weight_decay": 0.1}):
        a = parameters(MATRICES)
        optimizer = kind(a, **options | more, **way)
        for _ in range(2):
            for p in a:
                p.grad = torch.ones_like(p)
            optimizer.step()
        assert all((p.grad == 1).all() for p in a)


@pytest.mark.parametrize(("kind", "options"), ALL[:5], ids=lambda value: getattr(value, "__name__", ""))
def test_the_layout_of_a_gradient_in_memory_does_not_matter(kind, options):
    """torch.optim's kernels run along the memory of all tensors alike, and mix up the elements here."""
    a, b = parameters([(4, 3, 5, 2)]), parameters([(4, 3, 5, 2)])
    a[0].data = a[0].data.contiguous(memory_format=torch.channels_last)
    one, other = kind(a, **options), kind(b, **options, foreach=False)
    for seed in range(3):
        g = torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(seed))
        a[0].grad, b[0].grad = g.contiguous(), g.contiguous()
        one.step()
        other.step()
    assert difference(a, b) <= 1e-6


@every_one
def test_a_closure_computes_the_loss_first(kind, options):
    a = parameters([(5, 3)])
    optimizer = kind(a, **options)

    def closure():
        optimizer.zero_grad()
        loss = a[0].square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(4)]
    assert losses[-1] < losses[0]


@every_one
def test_fit_trains_with_it_and_goes_on_from_a_checkpoint(kind, options, tmp_path):
    x = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    batches = [(x[i : i + 4], x[i : i + 4, :3].argmax(1)) for i in range(0, 23, 4)]

    def train(epochs: int, checkpoint=None) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Linear(5, 3, bias=False)
        optimizer = kind(model.parameters(), **options | {"lr": 0.01})
        history = fit(model, batches, nn.functional.cross_entropy, optimizer, epochs=epochs, checkpoint=checkpoint)
        assert history["loss"][-1] < history["loss"][0]
        return model

    train(2, tmp_path / "state.pt")
    assert torch.equal(train(4, tmp_path / "state.pt").weight, train(4).weight)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: SGD(p, lr=-0.1), "lr must be at least 0 and finite, got -0.1"),
        (lambda p: Adam(p, lr=float("nan")), "lr must be at least 0 and finite, got nan"),
        (lambda p: Lion(p, lr=float("inf")), "lr must be at least 0 and finite, got inf"),
        (lambda p: Muon(p, lr=torch.ones(2)), r"lr must be one number, got a tensor \(2,\)"),
        (lambda p: AdamW([{"params": p, "lr": -1.0}]), "lr must be at least 0 and finite, got -1"),
        (lambda p: AdamW(p, weight_decay=-1), "weight_decay must be at least 0 and finite, got -1"),
        (lambda p: Adam(p, betas=(1.0, 0.9)), r"beta1 must be in \[0, 1\), got 1.0"),
        (lambda p: Lion(p, betas=(0.9, -0.1)), r"beta2 must be in \[0, 1\), got -0.1"),
        (lambda p: Adam(p, eps=-1e-8), "eps must be at least 0"),
        (lambda p: RMSprop(p, alpha=1.0), r"alpha must be in \[0, 1\), got 1.0"),
        (lambda p: RMSprop(p, momentum=-0.5), "momentum must be at least 0 and finite, got -0.5"),
        (lambda p: RMSprop(p, eps=-1.0), "eps must be at least 0"),
        (lambda p: SGD(p, momentum=-0.5), "momentum must be at least 0 and finite, got -0.5"),
        (lambda p: SGD(p, nesterov=True), "nesterov needs momentum and no dampening, got momentum=0.0"),
        (lambda p: SGD(p, nesterov=True, momentum=0.9, dampening=0.1), "dampening=0.1"),
        (lambda p: SGD(p, foreach=True, fused=True), "two ways to do the same"),
        (lambda p: Lion([{"params": p, "fused": True}]), "Lion has no fused kernel"),
        (lambda p: Muon(p, momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda p: Muon(p, ns_steps=100), "ns_steps must be from 0 to 99, got 100"),
        (lambda p: Muon(p, ns_coefficients=(1.0, 2.0)), r"three numbers, got \(1.0, 2.0\)"),
        (lambda p: Muon(p, adjust_lr_fn="no"), "match_rms_adamw, got 'no'"),
        (lambda p: Muon([*p, torch.zeros(3, requires_grad=True)]), r"takes matrices, got a parameter of shape \(3,\)"),
        (lambda p: Adam([torch.zeros(3, dtype=torch.complex64)]), "real numbers, got torch.complex64"),
        (lambda p: Adam([]), "empty parameter list"),
        (lambda p: orthogonalize(torch.zeros(3)), r"G must be \(..., rows, columns\), got \(3,\)"),
        (lambda p: orthogonalize(p[0], steps=-1), "steps must be from 0 to 99, got -1"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make(parameters([(5, 3)]))


def test_sparse_gradients_are_refused():
    table = nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"the gradient of a parameter \(5, 3\) is sparse"):
        SGD(table.parameters()).step()


def test_the_fused_kernel_is_the_default_where_there_is_one(monkeypatch):
    used = []
    kernel = torch._fused_sgd_
    monkeypatch.setattr(sgd.torch, "_fused_sgd_", lambda *args, **options: [used.append(1), kernel(*args, **options)])
    for options in ({}, {"fused": True}, {"foreach": True}, {"foreach": False}, {"fused": False}):
        a = parameters()
        go(SGD(a, **options), a, 1)
    assert len(used) == 2
