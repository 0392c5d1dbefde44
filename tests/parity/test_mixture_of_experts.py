"""The mixture of experts against Mixtral's in transformers."""

import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

from dlbook.layers.mixture_of_experts import MixtureOfExperts


def test_output_gradients_and_balance_equal_mixtrals():
    torch.manual_seed(0)
    config = MixtralConfig(hidden_size=6, intermediate_size=7, num_local_experts=5, num_experts_per_tok=2)
    theirs = MixtralSparseMoeBlock(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = MixtureOfExperts(6, 5, hidden=7)
    with torch.no_grad():
        ours.router.weight.copy_(theirs.gate.weight)
        ours.expand.copy_(theirs.experts.gate_up_proj.mT)
        ours.reduce.copy_(theirs.experts.down_proj.mT)
    one = torch.randn(3, 11, 6, requires_grad=True)
    two = one.detach().clone().requires_grad_()
    mine, balance = ours(one)
    wanted = theirs(two)
    torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)
    mine.square().mean().backward()
    wanted.square().mean().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.expand.grad, theirs.experts.gate_up_proj.grad.mT, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.router.weight.grad, theirs.gate.weight.grad, rtol=1e-4, atol=1e-6)
    logits = theirs.gate(two.detach())[0]
    # theirs adds up the shares of first and second choices, ours takes their mean
    torch.testing.assert_close(2 * balance, load_balancing_loss_func((logits,), 5, 2), rtol=1e-5, atol=1e-6)
