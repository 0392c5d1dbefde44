import pytest
import torch

from dlbook.layers.cache import DecoderCache, KVCache

B, K = 2, 4


def test_the_cache_doubles_and_keeps():
    cache, k = KVCache(limit=11), torch.randn(B, 3, 9, K)
    v = torch.randn(B, 3, 9, K)
    sizes = []
    for i in range(9):
        keys, values = cache.append(k[:, :, i : i + 1], v[:, :, i : i + 1])
        sizes.append(cache.capacity)
        assert torch.equal(keys, k[:, :, : i + 1])
        assert torch.equal(values, v[:, :, : i + 1])
    assert sizes == [1, 4, 4, 4, 10, 10, 10, 10, 10]
    assert KVCache(5, capacity=9).capacity == 5


def test_a_cache_forgets_and_selects():
    cache, k = KVCache(8), torch.randn(3, 2, 4, K)
    cache.append(k, k + 1)
    cache.truncate(3)
    cache.select(torch.tensor([2, 0, 0, 1]))
    assert torch.equal(cache.keys, k[[2, 0, 0, 1], :, :3])
    assert torch.equal(cache.values, k[[2, 0, 0, 1], :, :3] + 1)
    keys, _ = cache.append(torch.zeros(4, 2, 1, K), torch.zeros(4, 2, 1, K))
    assert keys.shape == (4, 2, 4, K)


def test_a_decoders_cache_knows_its_padding():
    cache, k = DecoderCache(2, limit=8), torch.zeros(B, 2, 3, K)
    assert cache.see(None, 3) is None
    for one in cache.layers:
        one.append(k, k)
    new = torch.tensor([[False, True], [True, True]])
    assert cache.see(new, 2).tolist() == [[True] * 3 + [False, True], [True] * 5]
    for one in cache.layers:
        one.append(k[:, :, :2], k[:, :, :2])
    cache.select(torch.tensor([1, 0, 0]))
    cache.truncate(4)
    assert len(cache) == 4
    assert cache.see(None, 1).tolist() == [[True] * 5, [True, True, True, False, True], [True, True, True, False, True]]
    with pytest.raises(ValueError, match="a context of 8 tokens is full: 4 are there, 5 more came"):
        cache.see(None, 5)


def test_a_decoders_cache_selects_what_the_encoder_said():
    cache = DecoderCache(1, limit=8)
    cache.context, cache.context_valid = torch.randn(B, 3, 5), torch.tensor([[True, True, False], [True] * 3])
    context, valid = cache.context, cache.context_valid
    cache.cross[0].append(torch.zeros(B, 1, 3, K), torch.ones(B, 1, 3, K) * torch.arange(B).view(-1, 1, 1, 1))
    cache.select(torch.tensor([1, 1, 0]))
    assert torch.equal(cache.context, context[[1, 1, 0]])
    assert torch.equal(cache.context_valid, valid[[1, 1, 0]])
    assert cache.cross[0].values[:, 0, 0, 0].tolist() == [1, 1, 0]
