"""Every way to share the work gives the weights and gradients of one process, and those of torch's own engine.

All jobs run in one start of the processes, since importing torch takes most of the time; each test looks at one.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from dlbook.train.parallel.collectives import ring_all_reduce
from dlbook.train.parallel.data import average_gradients, same_weights
from dlbook.train.parallel.launch import launch
from dlbook.train.parallel.pipeline import Schedule, gpipe, one_forward_one_backward, run_pipeline
from dlbook.train.parallel.tensor import ColumnLinear, RowLinear
from dlbook.train.parallel.zero import ZeroOptimizer

B, I, H, O = 12, 5, 6, 3  # divided by 1, 2 and 3 processes where they have to be  # noqa: E741


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(I, H), nn.Tanh(), nn.Linear(H, O)).double()


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    numbers = torch.randn(count, B, I + O, generator=generator, dtype=torch.float64)
    return [(batch[:, :I], batch[:, I:]) for batch in numbers]


def share(x: Tensor) -> Tensor:
    return x.chunk(dist.get_world_size())[dist.get_rank()]


def difference(ours: Any, theirs: Any) -> float:
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def trained(model: nn.Module, step: Callable[[Tensor, Tensor], object]) -> list[Tensor]:
    for x, y in batches(10):
        step(x, y)
    return [p.detach() for p in model.parameters()]


def alone(make: Callable[..., torch.optim.Optimizer]) -> list[Tensor]:
    model = network()
    optimizer = make(model.parameters())

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()

    return trained(model, step)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.3, momentum=0.9)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def job_ring() -> list[tuple[int, int, bool]]:
    found = []
    for length in (0, 1, 2, 7, 12):
        x = torch.arange(length, dtype=torch.float64) * (dist.get_rank() + 1)
        whole = x.clone()
        dist.all_reduce(whole)
        found.append((length, ring_all_reduce(x), torch.equal(x, whole)))
    return found


def job_data() -> tuple[float, float]:
    model = network()
    with torch.no_grad():
        model[0].weight += dist.get_rank()  # other weights in each
    same_weights(model)
    engine = DistributedDataParallel(copy.deepcopy(model))
    optimizers = sgd(model.parameters()), sgd(engine.parameters())

    def step(x: Tensor, y: Tensor) -> None:
        for net, optimizer in zip((model, engine), optimizers, strict=True):
            optimizer.zero_grad()
            F.mse_loss(net(share(x)), share(y)).backward()
            if net is model:
                average_gradients(model)
            optimizer.step()

    weights = trained(model, step)
    return difference(weights, alone(sgd)), difference(weights, engine.parameters())


def job_tensor() -> tuple[float, float, float]:
    whole, (x, y) = network(), batches(1)[0]
    ours = nn.Sequential(ColumnLinear(whole[0]), whole[1], RowLinear(whole[2]))
    theirs = copy.deepcopy(whole)
    parallelize_module(
        theirs, init_device_mesh("cpu", (dist.get_world_size(),)), {"0": ColwiseParallel(), "2": RowwiseParallel()}
    )
    inputs = [x.clone().requires_grad_() for _ in range(3)]
    outputs = [net(given) for net, given in zip((whole, ours, theirs), inputs, strict=True)]
    for output in outputs:
        F.mse_loss(output, y).backward()
    rows = whole[0].weight.grad.chunk(dist.get_world_size())[dist.get_rank()]
    columns = whole[2].weight.grad.chunk(dist.get_world_size(), 1)[dist.get_rank()]
    return (
        difference(outputs[1:], outputs[:1] * 2),
        difference([inputs[1].grad, ours[0].weight.grad, ours[2].weight.grad], [inputs[0].grad, rows, columns]),
        difference([p.grad.to_local() for p in theirs.parameters()], [p.grad for p in ours.parameters()]),
    )


def job_zero() -> tuple[float, float, int]:
    model, engine = network(), network()
    ours = ZeroOptimizer(model.parameters(), adamw)
    fully_shard(engine)
    theirs = adamw(engine.parameters())

    def step(x: Tensor, y: Tensor) -> None:
        ours.zero_grad()
        F.mse_loss(model(share(x)), share(y)).backward()
        ours.step()
        theirs.zero_grad()
        F.mse_loss(engine(share(x)), share(y)).backward()
        theirs.step()

    weights = trained(model, step)
    state = sum(moment.numel() for moment in ours.optimizer.state[ours.share].values() if moment.ndim)
    return difference(weights, alone(adamw)), difference(weights, [p.full_tensor() for p in engine.parameters()]), state


def job_pipeline(schedule: Callable[[int, int, int], Schedule], engine: Any) -> tuple[float, float, float]:
    torch.manual_seed(5)
    rank, size = dist.get_rank(), dist.get_world_size()
    stages = nn.Sequential(*(nn.Sequential(nn.Linear(I, I), nn.Tanh()) for _ in range(size))).double()
    whole, theirs = copy.deepcopy(stages), copy.deepcopy(stages)
    x, _ = batches(1)[0]
    y = x.flip(1)
    wanted = F.mse_loss(whole(x), y)
    wanted.backward()
    loss = run_pipeline(stages[rank], schedule(rank, size, 4), x, y, F.mse_loss, between=(I,))
    if size > 1:
        stage = PipelineStage(theirs[rank], rank, size, torch.device("cpu"))
        run = engine(stage, n_microbatches=4, loss_fn=F.mse_loss)
        run.step(*([x] if rank == 0 else []), **({"target": y} if rank == size - 1 else {}))
    else:
        F.mse_loss(theirs(x), y).backward()
    ours = [p.grad for p in stages[rank].parameters()]
    return (
        abs(loss.item() - wanted.item()),
        difference(ours, [p.grad for p in whole[rank].parameters()]),
        difference(ours, [p.grad for p in theirs[rank].parameters()]),
    )


def all_jobs() -> dict[str, Any]:
    warnings.simplefilter("ignore")
    torch.set_default_dtype(torch.float64)
    return {
        "ring": job_ring(),
        "data": job_data(),
        "tensor": job_tensor(),
        "zero": job_zero(),
        "gpipe": job_pipeline(gpipe, ScheduleGPipe),
        "1f1b": job_pipeline(one_forward_one_backward, Schedule1F1B),
    }


@pytest.fixture(scope="module", params=[1, 2, 3])
def found(request) -> tuple[int, list[dict[str, Any]]]:
    return request.param, launch(all_jobs, processes=request.param)


def test_ring_is_the_sum_and_sends_no_more_than_it_has_to(found):
    size, ranks = found
    for lengths in zip(*(rank["ring"] for rank in ranks), strict=True):
        length = lengths[0][0]
        assert all(equal for _, _, equal in lengths)
        assert sum(sent for _, sent, _ in lengths) == 2 * (size - 1) * length * 8


@pytest.mark.parametrize("job", ["data", "tensor", "gpipe", "1f1b"])
def test_equal_to_one_process_and_to_torch(found, job):
    _, ranks = found
    assert all(number < 1e-12 for rank in ranks for number in rank[job])


def test_zero_is_equal_and_keeps_a_share_of_the_state(found):
    size, ranks = found
    parameters = sum(p.numel() for p in network().parameters())
    for rank in ranks:
        whole, engine, state = rank["zero"]
        assert max(whole, engine) < 1e-12
        assert state == 2 * -(-parameters // size)
