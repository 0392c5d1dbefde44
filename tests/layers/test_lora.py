"""Adapters change nothing at first, learn alone, and go into the weight and out of it."""

import copy

import pytest
import torch
from torch import nn

from dlbook.layers.lora import LoRA, adapter_state, add_lora

I, O, R = 7, 5, 3  # noqa: E741


def trained(dropout=0.0):
    torch.manual_seed(0)
    layer = LoRA(nn.Linear(I, O).double(), R, alpha=4.5, dropout=dropout)
    nn.init.normal_(layer.b)
    return layer


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)))


def test_is_exactly_the_layer_at_first():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        base = nn.Linear(I, O).to(dtype)
        x = torch.randn(2, 4, I, dtype=dtype)
        wanted = base(x)
        layer = LoRA(base, R)
        assert layer(x).dtype == dtype
        assert torch.equal(layer(x), wanted)


def test_equals_the_formula():
    layer, x = trained(), torch.randn(2, 4, I, dtype=torch.float64)
    wanted = x @ (layer.base.weight + 1.5 * layer.b @ layer.a).T + layer.base.bias
    torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)


def test_merged_it_gives_the_same_and_comes_out_bit_for_bit():
    layer, x = trained(), torch.randn(2, I, dtype=torch.float64)
    before, weight = layer(x), layer.base.weight.clone()
    for _ in range(2):  # merging twice adds it once
        layer.merge()
    assert layer.merged
    torch.testing.assert_close(layer(x), before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.base(x), before, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match=r"unmerge\(\) before the state is saved: base.weight"):
        layer.state_dict()
    for _ in range(2):
        layer.unmerge()
    assert not layer.merged
    assert torch.equal(layer.base.weight, weight)
    assert torch.equal(layer(x), before)
    layer.load_state_dict(layer.state_dict())


def test_dropout_is_only_for_the_adapter_and_for_training():
    layer, x = trained(dropout=0.5), torch.randn(2, I, dtype=torch.float64)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))
    nn.init.zeros_(layer.b)
    assert torch.equal(layer.train()(x), layer.base(x))


def test_only_the_adapters_learn_and_they_do():
    net, x, y = model(), torch.randn(20, 4), torch.randn(20, 3)
    frozen = copy.deepcopy(net.state_dict())
    before = net(x)
    assert add_lora(net, 2, where=lambda name: name != "3.1") == ["0", "3.0"]
    assert torch.equal(net(x), before)
    names = {name for name, p in net.named_parameters() if p.requires_grad}
    assert names == set(adapter_state(net)) == {"0.a", "0.b", "3.0.a", "3.0.b"}
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 0.01)
    losses = []
    for _ in range(30):
        loss = (net(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    for name, value in net.state_dict().items():
        if name not in names:
            assert torch.equal(value, frozen[name.replace("base.", "")])
    other = model()
    add_lora(other, 2, where=lambda name: name != "3.1")
    assert not other.load_state_dict(adapter_state(net), strict=False).unexpected_keys
    assert torch.equal(other(x), net(x))


def test_a_layer_in_two_places_has_one_adapter():
    layer = nn.Linear(4, 4)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert add_lora(net, 2) == ["0", "2"]
    assert net[0] is net[2]
    assert set(adapter_state(net)) == {"0.a", "0.b", "2.a", "2.b"}


def test_bad_input_is_refused():
    for rank in (0, 6):
        with pytest.raises(ValueError, match=f"rank must be 1 to 5 .*, got {rank}"):
            LoRA(nn.Linear(I, O), rank)
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1, got 1"):
        LoRA(nn.Linear(I, O), R, dropout=1)
    net = model()
    with pytest.raises(ValueError, match="none of the linear layers within Sequential"):
        add_lora(net, 2, where=lambda name: "attention" in name)
    with pytest.raises(ValueError, match=r"rank=4 does not fit 3\.1"):
        add_lora(net, 4)
    assert all(p.requires_grad for p in net.parameters())
    add_lora(net, 2)
    with pytest.raises(ValueError, match="has adapters"):
        add_lora(net, 2)
