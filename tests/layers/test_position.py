import math

import pytest
import torch
from torch import nn

from dlbook.layers.position import (
    Rotary,
    RotaryScaling,
    T5Bias,
    alibi,
    alibi_slopes,
    distances,
    half_from_interleaved,
    rotate,
    sinusoidal,
)

B, N, T, K = 2, 3, 7, 8


def test_sinusoidal_by_the_formula_of_the_paper():
    table = sinusoidal(5, 6)
    for t in range(5):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert table[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-7)
            assert table[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-7)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_turns_pairs_as_complex_numbers(interleaved):
    x = torch.randn(B, N, T, K, dtype=torch.float64)
    turned = Rotary(K, 16, base=50.0, interleaved=interleaved).double()(x, start=2)
    angles = torch.arange(2.0, 2 + T).unsqueeze(1) * 50.0 ** -(torch.arange(0, K, 2) / K)
    pairs = x.unflatten(-1, (-1, 2)) if interleaved else x.unflatten(-1, (2, -1)).transpose(-1, -2)
    wanted = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.exp(1j * angles.double()))
    wanted = wanted.flatten(-2) if interleaved else wanted.transpose(-1, -2).flatten(-2)
    torch.testing.assert_close(turned, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_depend_on_the_distance_alone(interleaved):
    turn = Rotary(K, 100, interleaved=interleaved).double()
    q, k = torch.randn(2, 1, 1, 1, K, dtype=torch.float64)
    scores = [(turn(q, start=t) * turn(k, start=t - 3)).sum() for t in (3, 8, 99)]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scores[0], scores[2], rtol=1e-6, atol=1e-6)
    assert not torch.isclose(scores[0], (turn(q, start=3) * turn(k, start=1)).sum())


def test_the_layouts_give_equal_scores_once_the_rows_are_reordered():
    heads = 3
    x, w_q, w_k = torch.randn(1, T, 10), torch.randn(heads * K, 10), torch.randn(heads * K, 10)

    def scores(w_q, w_k, interleaved):
        turn = Rotary(K, 16, interleaved=interleaved)
        q, k = ((x @ w.t()).unflatten(-1, (heads, K)).transpose(1, 2) for w in (w_q, w_k))
        return turn(q) @ turn(k).mT

    wanted = scores(w_q, w_k, True)
    reordered = half_from_interleaved(w_q, heads), half_from_interleaved(w_k, heads)
    torch.testing.assert_close(scores(*reordered, False), wanted, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(scores(w_q, w_k, False), wanted, atol=0.1)


def test_given_positions_equal_counted_ones():
    turn, x = Rotary(K, 16), torch.randn(B, N, T, K)
    torch.testing.assert_close(turn(x, positions=torch.arange(3, 3 + T)), turn(x, start=3))
    rows = torch.stack([torch.arange(T), torch.arange(5, 5 + T)])
    torch.testing.assert_close(turn(x, positions=rows)[1], turn(x, start=5)[1])
    torch.testing.assert_close(turn(x, positions=rows)[0], turn(x)[0])


def test_far_positions_are_exact():
    turn = Rotary(4, 131072)
    torch.testing.assert_close(turn.cos[131071, 0].item(), math.cos(131071.0), rtol=0, atol=1e-7)


def test_llamas_scaling_keeps_short_waves_and_stretches_long_ones():
    scaling = RotaryScaling(factor=8, low=1, high=4, original_context=64)
    waves = torch.tensor([10.0, 16.0, 32.0, 64.0, 100.0])  # in tokens
    stretched = 2 * math.pi / scaling(2 * math.pi / waves)
    torch.testing.assert_close(stretched[[0, 1, 3, 4]], torch.tensor([10.0, 16.0, 512.0, 800.0]))
    assert 32 < stretched[2] < 256
    torch.testing.assert_close(RotaryScaling(4, high=0)(waves), waves / 4)


def test_interpolated_positions_are_those_between():
    near, far = Rotary(K, 16), Rotary(K, 64, scaling=RotaryScaling(4, high=0))
    torch.testing.assert_close(far.cos[::4], near.cos)


def test_rotate_keeps_lengths_and_dtype():
    x = torch.randn(2, T, K, dtype=torch.bfloat16)
    angles = torch.randn(T, K // 2, dtype=torch.bfloat16)
    y = rotate(x, angles.cos(), angles.sin())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=0.02, atol=0)
    assert Rotary(K, 16)(x.unsqueeze(0)).dtype == torch.bfloat16


def test_alibi_by_the_formula_of_the_paper():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    torch.testing.assert_close(alibi_slopes(6), 2.0 ** -torch.tensor([2, 4, 6, 8, 1, 3]))
    bias = alibi(8, 3, 5)
    assert bias.shape == (8, 3, 5)
    for t in range(3):
        for s in range(5):
            assert bias[2, t, s] == -(2.0**-3) * abs(t + 2 - s)


def test_distances():
    assert distances(2, 4).tolist() == [[-2, -1, 0, 1], [-3, -2, -1, 0]]


def test_t5_shares_far_distances():
    layer = T5Bias(2, num_buckets=8, max_distance=20)
    line = layer.buckets(41)[20]  # from 20 before to 20 after
    assert line[20] == 0
    assert line[18:23].tolist() == [2, 1, 0, 5, 6]
    assert (line[:7] == 3).all()
    assert (line[-7:] == 7).all()
    one_way = T5Bias(2, num_buckets=8, max_distance=20, bidirectional=False).buckets(41)[20]
    assert (one_way[20:] == 0).all()
    assert one_way[16:20].tolist() == [4, 3, 2, 1]
    assert layer(3, 5).shape == (2, 3, 5)
    torch.testing.assert_close(layer(3, 5), layer(5)[:, 2:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sinusoidal(3, 5), "width=5"),
        (lambda: sinusoidal(0, 4), "length=0"),
        (lambda: Rotary(7, 9), "width=7"),
        (lambda: Rotary(8, 9, base=0), "base=0"),
        (lambda: Rotary(8, 9)(torch.zeros(1, 1, 5, 8), start=5), "positions up to 10 go beyond a context of 9"),
        (lambda: RotaryScaling(0), "factor"),
        (lambda: RotaryScaling(low=4, high=2), "high 0 or above low"),
        (lambda: alibi_slopes(0), "num_heads must be positive, got 0"),
        (lambda: alibi(2, 5, 3), "length=5, total=3"),
        (lambda: T5Bias(2, num_buckets=6), "num_buckets=6"),
        (lambda: T5Bias(2, num_buckets=32, max_distance=16), "max_distance=16"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_tables_are_no_parameters():
    assert not list(Rotary(8, 9).parameters())
    assert not nn.ModuleList([Rotary(8, 9)]).state_dict()
