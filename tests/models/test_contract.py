"""What every model in dlbook/models keeps, on sizes small enough for a laptop."""

import pytest
import torch

from dlbook.models.bump import BumpNetwork
from dlbook.models.mlp import MLP
from dlbook.models.sawtooth import Sawtooth

# name: (how to make it, an input, parameters counted by hand)
CASES = {
    "mlp": (
        lambda: MLP((7, 5, 3)),
        torch.randn(4, 7, generator=torch.Generator().manual_seed(0)),
        7 * 5 + 5 + 5 * 3 + 3,
    ),
    "bump": (lambda: BumpNetwork(9), torch.linspace(0, 1, 4).unsqueeze(1), 3 * 9 + 1),
    "sawtooth": (lambda: Sawtooth(3), torch.linspace(0, 1, 4).unsqueeze(1), 6 * 3 + 1),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    torch.manual_seed(0)
    return request.param


def test_parameter_count(case):
    make, _, count = case
    assert sum(p.numel() for p in make().parameters()) == count


def test_every_parameter_gets_a_finite_gradient(case):
    make, x, _ = case
    model = make()
    model(x).square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


def test_rows_do_not_mix(case):
    make, x, _ = case
    model = make().eval()
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(case, dtype):
    make, x, _ = case
    assert make().to(dtype)(x.to(dtype)).dtype == dtype


def test_runs_on_another_device(case):
    make, x, _ = case
    assert make().to("meta")(x.to("meta")).device.type == "meta"


def test_state_dict_round_trip(case):
    make, x, _ = case
    one, two = make().eval(), make().eval()
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(x), two(x))


def test_can_be_exported(case):
    make, x, _ = case
    model = make().eval()
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_can_be_exported_and_compiled_for_batches_of_any_size(case):
    make, x, _ = case
    model = make().eval()
    more = torch.cat([x, x, x])
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for runs in (exported, compiled):
        for batch in (x, more):
            torch.testing.assert_close(runs(batch), model(batch))
