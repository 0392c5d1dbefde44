import pytest
import torch

from dlbook.sampling import GREEDY, Sampling, keep_top_p

LOGITS = torch.tensor([0.1, 0.4, 0.3, 0.2]).log().unsqueeze(0)


def test_chosen_tokens_have_their_probabilities():
    many = LOGITS.expand(20000, -1)
    chosen = Sampling(temperature=0.5, top_k=3).choose(many, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([0, 16.0, 9, 4]) / 29  # squares of what stays
    torch.testing.assert_close(chosen.bincount(minlength=4) / 20000, wanted, rtol=0, atol=0.01)


def test_greedy_takes_the_most_probable_that_is_not_seen():
    assert GREEDY.choose(LOGITS).item() == 1
    assert GREEDY.probabilities(LOGITS).tolist() == [[0, 1, 0, 0]]
    seen = torch.tensor([[False, True, False, False]])
    assert Sampling(temperature=0, repetition_penalty=2.0).choose(LOGITS, seen).item() == 2


def test_the_most_probable_always_stays():
    assert keep_top_p(LOGITS, 1e-9).isfinite().tolist() == [[False, True, False, False]]
    assert Sampling(min_p=1.0).filtered(LOGITS).isfinite().tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"min_p": -0.1}, "min_p=-0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty=0"),
    ],
)
def test_numbers_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
