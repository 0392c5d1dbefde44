"""RoIAlign against its definition, sample by sample, and numbers of torchvision 0.28."""

import math

import pytest
import torch

from dlbook.layers.roi_align import pyramid_roi_align, roi_align


def at(plane, y, x):
    """One bilinear sample: 0 more than a cell outside, the edge's value up to a cell outside."""
    H, W = plane.shape
    if y < -1 or y > H or x < -1 or x > W:
        return 0.0
    y, x = min(max(y, 0.0), H - 1.0), min(max(x, 0.0), W - 1.0)
    i, j = min(int(y), H - 1), min(int(x), W - 1)
    k, m, v, u = min(i + 1, H - 1), min(j + 1, W - 1), y - int(y), x - int(x)
    top, bottom = (1 - u) * plane[i, j] + u * plane[i, m], (1 - u) * plane[k, j] + u * plane[k, m]
    return (1 - v) * top + v * bottom


def by_definition(features, boxes, P, scale, S, aligned):
    B, C = features.shape[:2]
    result = torch.zeros(B, boxes.shape[1], C, P, P, dtype=features.dtype)
    for b in range(B):
        for r, box in enumerate(boxes[b].tolist()):
            x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0.0) for c in box)
            w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
            for c in range(C):
                for p in range(P):
                    for q in range(P):
                        ys = [y1 + h * (p + (s + 0.5) / S) / P for s in range(S)]
                        xs = [x1 + w * (q + (s + 0.5) / S) / P for s in range(S)]
                        samples = [at(features[b, c], y, x) for y in ys for x in xs]
                        result[b, r, c, p, q] = sum(samples) / S**2
    return result


def example(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 5, 7, generator=generator, dtype=dtype)
    boxes = torch.tensor(
        [
            [[4.0, 6, 30, 25], [-9, -12, 5, 3], [20, 10, 21, 11], [0, 0, 56, 40]],
            [[50.0, 30, 80, 60], [3, 3, 3, 3], [10, 2, 40, 6], [100, 100, 120, 120]],
        ],
        dtype=dtype,
    )
    return features, boxes


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
def test_is_its_definition(aligned, sampling_ratio):
    features, boxes = example()
    settings = {"scale": 1 / 8, "sampling_ratio": sampling_ratio, "aligned": aligned}
    right = by_definition(features, boxes, 2, 1 / 8, sampling_ratio, aligned)
    torch.testing.assert_close(roi_align(features, boxes, 2, **settings), right, rtol=0, atol=1e-12)
    single = roi_align(features.float(), boxes.float(), 2, **settings)
    torch.testing.assert_close(single, right.float(), rtol=1e-5, atol=1e-5)


# torchvision.ops.roi_align of torchvision 0.28.0 on the map y**2 + 3 x, 5 x 7 cells, scale 1/8, 2 bins, 2 x 2 samples
BOX = [4.0, 6.0, 30.0, 25.0]
TORCHVISION = {
    True: [[3.421875, 8.296875], [6.859375, 11.734375]],
    False: [[5.96875, 10.84375], [10.59375, 15.46875]],
}


@pytest.mark.parametrize("aligned", [True, False])
def test_is_torchvisions(aligned):
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    ours = roi_align((y**2 + 3 * x)[None, None], torch.tensor([[BOX]]), 2, scale=1 / 8, aligned=aligned)
    torch.testing.assert_close(ours[0, 0, 0], torch.tensor(TORCHVISION[aligned]))


def test_gradient():
    features, boxes = example()
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: roi_align(f, boxes, 2, scale=1 / 8), (features,))


def test_pyramid_reads_the_right_map():
    maps = [torch.full((1, 2, 64 // 2**k, 64 // 2**k), float(k)) for k in range(3)]
    sides = [1.0, 55.9, 56, 111.9, 112, 224, 250]  # a canonical box of 112 reads the last map
    boxes = torch.tensor([[[0, 0, side, side] for side in sides]])
    pooled = pyramid_roi_align(maps, boxes, 2, scales=(1 / 4, 1 / 8, 1 / 16), canonical_size=112, canonical_level=2)
    assert pooled.amax((2, 3, 4)).tolist() == [[0, 0, 1, 1, 2, 2, 2]]


def test_pyramid_is_roi_align_on_each_map():
    features, boxes = example()
    finer = torch.randn(2, 3, 10, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pooled = pyramid_roi_align([finer, features], boxes, 3, scales=(1 / 4, 1 / 8), canonical_size=20, canonical_level=1)
    sides = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).sqrt()
    fine = roi_align(finer, boxes, 3, scale=1 / 4, aligned=False)
    coarse = roi_align(features, boxes, 3, scale=1 / 8, aligned=False)
    right = torch.where((sides < 20)[..., None, None, None], fine, coarse)
    torch.testing.assert_close(pooled, right, rtol=0, atol=1e-12)
    assert 0 < (sides < 20).sum() < 8


def test_no_box_at_all():
    assert roi_align(torch.zeros(2, 3, 4, 5), torch.zeros(2, 0, 4), 2).shape == (2, 0, 3, 2, 2)


def test_wrong_input():
    features = torch.zeros(2, 3, 4, 5)
    with pytest.raises(ValueError, match=r"boxes must be \(2, boxes, 4\)"):
        roi_align(features, torch.zeros(1, 3, 4), 2)
    with pytest.raises(ValueError, match="sampling_ratio=0"):
        roi_align(features, torch.zeros(2, 3, 4), 2, sampling_ratio=0)
    with pytest.raises(ValueError, match="positive scale"):
        roi_align(features, torch.zeros(2, 3, 4), 2, scale=-math.inf)
