"""What stays of the logits against transformers' filters."""

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dlbook.sampling import Sampling, keep_min_p, keep_top_k, keep_top_p, penalize

LOGITS = 3 * torch.randn(7, 19, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(19, (7, 5), generator=torch.Generator().manual_seed(1))
SEEN = torch.zeros(7, 19, dtype=torch.bool).scatter(1, TOKENS, True)


@pytest.mark.parametrize("k", [1, 4, 18, 30])
def test_top_k(k):
    assert torch.equal(keep_top_k(LOGITS, k), TopKLogitsWarper(k)(None, LOGITS))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
def test_top_p(p):
    assert torch.equal(keep_top_p(LOGITS, p), TopPLogitsWarper(p)(None, LOGITS))


@pytest.mark.parametrize("p", [0.0, 0.05, 0.4, 1.0])
def test_min_p(p):
    assert torch.equal(keep_min_p(LOGITS, p), MinPLogitsWarper(p)(None, LOGITS))


@pytest.mark.parametrize("penalty", [1.3, 0.6])
def test_repetition_penalty(penalty):
    wanted = RepetitionPenaltyLogitsProcessor(penalty)(TOKENS, LOGITS)
    torch.testing.assert_close(penalize(LOGITS, SEEN, penalty), wanted)


def test_all_in_their_order():
    wanted = RepetitionPenaltyLogitsProcessor(1.3)(TOKENS, LOGITS)
    for step in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(9), TopPLogitsWarper(0.8), MinPLogitsWarper(0.1)):
        wanted = step(TOKENS, wanted)
    mine = Sampling(1.3, 0.7, top_k=9, top_p=0.8, min_p=0.1)
    torch.testing.assert_close(mine.filtered(LOGITS, SEEN), wanted)
    torch.testing.assert_close(mine.probabilities(LOGITS, SEEN), wanted.softmax(-1))
