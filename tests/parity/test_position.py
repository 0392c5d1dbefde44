"""Biases of scores against those of transformers' models."""

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from dlbook.layers.position import T5Bias, alibi, distances


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (8, 20)])
def test_t5s_buckets(bidirectional, buckets, most):
    ours = T5Bias(2, num_buckets=buckets, max_distance=most, bidirectional=bidirectional).buckets(150, 300)
    theirs = T5Attention._relative_position_bucket(distances(150, 300), bidirectional, buckets, most)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("heads", [1, 4, 6, 12])
def test_alibis_slopes(heads):
    theirs = build_alibi_tensor(torch.ones(1, 9), heads, torch.float32).view(heads, 9)
    torch.testing.assert_close(alibi(heads, 1, 9)[:, 0], theirs - theirs[:, -1:])
