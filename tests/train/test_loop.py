"""fit does what a plain loop does, to the bit, and what each of its arguments promises."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from dlbook.data.batches import Batches
from dlbook.train import accuracy, evaluate, fit

LOSS = nn.functional.cross_entropy
N, INPUTS, H, K = 23, 5, 7, 3  # examples, inputs, hidden units, classes; 23 = 4 + 4 + 4 + 4 + 4 + 3


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, INPUTS, generator=generator)
    return x, x[:, :K].argmax(1)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(INPUTS, H), nn.Tanh(), nn.Linear(H, K))


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def shuffled(seed: int = 4) -> Batches:
    return Batches(*data(), 4, shuffle=True, generator=torch.Generator().manual_seed(seed))


OPTIMIZERS = {
    "sgd": sgd,
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_fit_equals_a_plain_loop_bit_for_bit(make):
    by_hand = mlp()
    optimizer = make(by_hand)
    x, y = data()
    generator = torch.Generator().manual_seed(4)
    losses = []
    for _ in range(3):
        total = 0.0
        for rows in torch.randperm(N, generator=generator).split(4):
            loss = LOSS(by_hand(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        losses.append(total / N)

    model = mlp()
    history = fit(model, shuffled(), LOSS, make(model), epochs=3)

    assert_same_bits(model, by_hand)
    assert history["loss"] == losses


def test_the_last_smaller_batch_counts_by_its_size():
    """With a learning rate of 0 the epoch's loss is the loss of all examples, which a mean of batch means is not."""
    x, y = data()
    x[-3:] *= 9  # so that the last batch's loss is another
    model = mlp()
    history = fit(model, Batches(x, y, 4), LOSS, sgd(model, lr=0.0), epochs=1)
    assert history["loss"][0] == pytest.approx(LOSS(model(x), y).item(), rel=1e-6)
    mean_of_means = sum(LOSS(model(a), b).item() for a, b in Batches(x, y, 4)) / 6
    assert abs(mean_of_means - history["loss"][0]) > 1e-3


def test_every_batch_is_trained_on_with_its_own_shape():
    seen = []

    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape))
            return self.net(x)

    model = Watch()
    fit(model, Batches(*data(), 4), LOSS, sgd(model), epochs=2)
    assert seen == 2 * [*5 * [(4, INPUTS)], (3, INPUTS)]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (4, 4), (5, 3), (23, 1), (1, 23), (4, 100)])
def test_accumulated_batches_step_like_one_large_batch(batch_size, accumulate):
    """23 examples: the number of batches is no multiple of `accumulate`, and the last batch is smaller."""
    x, y = (part.double() if part.is_floating_point() else part for part in data())
    small, large = mlp().double(), mlp().double()
    history = fit(small, Batches(x, y, batch_size), LOSS, sgd(small), epochs=3, accumulate=accumulate)
    expected = fit(large, Batches(x, y, batch_size * accumulate), LOSS, sgd(large), epochs=3)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    for a, b in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_clipping_equals_clipping_by_hand_and_bounds_the_step():
    x, y = data()
    model, by_hand = mlp(), mlp()
    before = torch.cat([p.detach().flatten() for p in mlp().parameters()])
    fit(model, [(x, y)], LOSS, sgd(model, lr=1.0), epochs=1, max_grad_norm=0.01)

    optimizer = sgd(by_hand, lr=1.0)
    LOSS(by_hand(x), y).backward()
    nn.utils.clip_grad_norm_(by_hand.parameters(), 0.01)
    optimizer.step()

    assert_same_bits(model, by_hand)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_scheduler_steps_once_per_optimiser_step():
    model = mlp()
    optimizer = sgd(model, lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    fit(model, Batches(*data(), 4), LOSS, optimizer, epochs=2, scheduler=scheduler, accumulate=4)
    assert scheduler.get_last_lr() == [1 / (1 + 4)]  # 6 batches in groups of 4: 2 steps an epoch


def test_validation_is_recorded_and_weighted_by_examples():
    x, y = data()
    model = mlp()
    history = fit(
        model, [(x, y)], LOSS, sgd(model), epochs=2, val_data=Batches(x, y, 4), metrics={"accuracy": accuracy}
    )
    assert list(history) == ["loss", "val_loss", "val_accuracy"]
    assert history["val_loss"][-1] == pytest.approx(LOSS(model(x), y).item(), rel=1e-6)
    assert history["val_accuracy"][-1] == pytest.approx((model(x).argmax(1) == y).double().mean().item(), rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back(training):
    model = nn.Sequential(nn.Linear(INPUTS, K), nn.Dropout(0.5)).train(training)
    seen = []
    model.register_forward_hook(lambda module, *_: seen.append(module.training))
    fit(model, [data()], LOSS, sgd(model), epochs=1, val_data=[data()])
    assert seen == [True, False]
    assert all(module.training is training for module in model.modules())
    evaluate(model, [data()], LOSS)
    assert all(module.training is training for module in model.modules())


def test_evaluate_keeps_no_graph_and_changes_no_running_statistics():
    model = nn.Sequential(nn.Linear(INPUTS, K), nn.BatchNorm1d(K))
    before = copy.deepcopy(model)
    assert isinstance(evaluate(model, [data()], LOSS)["loss"], float)
    assert_same_bits(model, before)
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_is_not_finite_names_the_epoch_and_keeps_the_mode():
    x, y = data()
    model = mlp().eval()
    poisoned = iter([[(x, y)], [(x * math.nan, y)]])

    class Data:
        def __iter__(self):
            return iter(next(poisoned))

    with pytest.raises(
        FloatingPointError, match=r"loss is nan in epoch 2: .* data may hold values that are not finite"
    ):
        fit(model, Data(), LOSS, sgd(model), epochs=5)
    assert not model.training


def test_weights_ruined_by_the_last_step_are_noticed_in_validation():
    x, y = data()
    model = mlp()
    with pytest.raises(FloatingPointError, match="val_loss is nan in epoch 1"):
        fit(model, [(x, y)], LOSS, sgd(model, lr=math.inf), epochs=1, val_data=[(x, y)])


def test_on_epoch_sees_the_history_grow():
    lengths = []
    model = mlp()
    fit(model, [data()], LOSS, sgd(model), epochs=3, on_epoch=lambda history: lengths.append(history.epochs))
    assert lengths == [1, 2, 3]


def test_an_interrupt_leaves_the_model_usable():
    def stop(history):
        raise KeyboardInterrupt

    model = mlp().eval()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [data()], LOSS, sgd(model), epochs=3, on_epoch=stop)
    assert not model.training
    assert model(data()[0]).isfinite().all()


def test_a_parameter_outside_the_optimizer_does_not_move_or_count_for_clipping():
    x, y = data()
    model, reference = mlp(), mlp()
    reference[0].requires_grad_(False)
    fit(model, [(x, y)], LOSS, sgd(model[2]), epochs=3, max_grad_norm=0.01)
    fit(reference, [(x, y)], LOSS, sgd(reference[2]), epochs=3, max_grad_norm=0.01)
    assert_same_bits(model, reference)


def test_the_model_is_compiled_where_it_was_asked_for(monkeypatch):
    compiled, model = [], mlp()
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    fit(model, [data()], LOSS, sgd(model), epochs=1)
    assert compiled == []
    fit(model, [data()], LOSS, sgd(model), epochs=1, compile=True)
    assert compiled == [model]


def test_compiled_training_gives_the_same_model():
    model, plain = mlp(), mlp()
    with torch._dynamo.config.patch(suppress_errors=False):
        torch._dynamo.reset()
        # the "eager" backend needs no C++ compiler; fit passes nothing on, so it is put in torch.compile's place
        original = torch.compile
        try:
            torch.compile = lambda module: original(module, backend="eager")
            history = fit(model, shuffled(), LOSS, sgd(model), epochs=2, compile=True, val_data=[data()])
        finally:
            torch.compile = original
    assert history == fit(plain, shuffled(), LOSS, sgd(plain), epochs=2, val_data=[data()])
    assert_same_bits(model, plain)


BAD = {
    "epochs must be at least 1, got 0": {"epochs": 0},
    "accumulate must be at least 1, got 0": {"accumulate": 0},
    "max_grad_norm must be above 0, got 0": {"max_grad_norm": 0},
    "max_grad_norm must be above 0, got nan": {"max_grad_norm": math.nan},
    "measured on val_data": {"metrics": {"accuracy": accuracy}},
    "precision": {"precision": "int8"},
    "data is empty": {"data": []},
}


@pytest.mark.parametrize(("message", "arguments"), BAD.items(), ids=BAD)
def test_bad_arguments_are_refused_with_their_value(message, arguments):
    model = mlp()
    with pytest.raises(ValueError, match=message):
        fit(model, loss_fn=LOSS, optimizer=sgd(model), **({"epochs": 1, "data": [data()]} | arguments))


def test_a_batch_without_examples_is_passed_over():
    x, y = data()
    pieces = [(x[:9], y[:9]), (x[9:16], y[9:16]), (x[16:], y[16:])]
    nothing = (x[:0], y[:0])
    model, other = mlp(), mlp()
    history = fit(model, pieces, LOSS, sgd(model), epochs=2, accumulate=2, val_data=pieces)
    with_gaps = [nothing, pieces[0], nothing, *pieces[1:], nothing]
    assert fit(other, with_gaps, LOSS, sgd(other), epochs=2, accumulate=2, val_data=with_gaps) == history
    assert_same_bits(model, other)


def test_a_model_without_parameters_is_evaluated_on_the_cpu():
    x, y = data()
    right = LOSS(x, y).item()
    assert evaluate(nn.Identity(), [(x[:9], y[:9]), (x[9:], y[9:])], LOSS)["loss"] == pytest.approx(right, rel=1e-6)


def test_evaluate_refuses_empty_data_and_restores_the_mode():
    model = mlp()
    with pytest.raises(ValueError, match=r"^data is empty: it gave no example$"):
        evaluate(model, [], LOSS)
    assert model.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_a_gpu_learns_in_every_precision(precision):
    x, y = data()
    model = mlp().cuda()
    optimizer = sgd(model, lr=0.5)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    batches = Batches(x, y, 4, device="cuda")
    history = fit(
        model, batches, LOSS, optimizer, epochs=30, precision=precision, scheduler=scheduler, max_grad_norm=5.0
    )
    assert history["loss"][-1] < history["loss"][0] / 3
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_gpu_inside_an_epoch():
    model = mlp().cuda()
    optimizer = sgd(model)
    batches = Batches(*data(), 4, device="cuda")
    fit(model, batches, LOSS, optimizer, epochs=1)

    class Watched(Batches):
        def __iter__(self):
            torch.cuda.set_sync_debug_mode("error")
            yield from super().__iter__()
            torch.cuda.set_sync_debug_mode("default")

    try:
        fit(model, Watched(*data(), 4, device="cuda"), LOSS, optimizer, epochs=1, max_grad_norm=1.0, accumulate=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
