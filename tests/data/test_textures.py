"""Surfaces to inspect: defects are where the masks say, and nowhere else."""

import pytest
import torch

from dlbook.data.textures import DEFECTS, SURFACES, textures


@pytest.mark.parametrize("surface", SURFACES)
def test_only_the_defect_differs_from_the_sound_piece(surface):
    sound, defective = (textures(surface, 20, split="test", defective=share, seed=5) for share in (0.0, 1.0))
    changed = (sound.images != defective.images)[:, 0]
    assert not (changed & ~defective.masks).any()
    assert (changed & defective.masks).sum() > 0.95 * defective.masks.sum()


def test_shapes_kinds_and_sizes():
    made = textures("grass", 30, defective=0.4, size=48)
    assert made.images.shape == (30, 1, 48, 48)
    assert made.images.dtype == torch.float32
    assert made.masks.shape == (30, 48, 48)
    assert made.kinds.bincount(minlength=len(DEFECTS)).tolist() == [18, 4, 4, 4]
    area = made.masks.float().mean((1, 2))
    assert (area[made.kinds == 0] == 0).all()
    assert (area[made.kinds > 0] > 0.003).all()
    assert (area < 0.25).all()


def test_sound_pieces_are_cut_from_their_own_part():
    from dlbook.data.photos import photos

    whole = photos("gravel")["gravel"].image[0]
    parts = {"train": whole[:, :341], "test": whole[:, 341:]}
    for split, part in parts.items():
        windows = part.unfold(0, 128, 1).unfold(1, 128, 1)
        for piece in textures("gravel", 3, split=split, size=128).images[:, 0]:
            assert (windows[..., ::16, ::16] == piece[::16, ::16]).all(-1).all(-1).any()


def test_the_seed_decides():
    assert torch.equal(textures("brick", 4, seed=1).images, textures("brick", 4, seed=1).images)
    assert not torch.equal(textures("brick", 4, seed=1).images, textures("brick", 4, seed=2).images)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"surface": "silk"}, "got 'silk'"),
        ({"split": "val"}, "got 'val'"),
        ({"count": 0}, "got 0"),
        ({"defective": 1.5}, "1.5"),
        ({"size": 200}, "200"),
    ],
)
def test_what_cannot_be_made_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        textures(**{"surface": "brick", "count": 2} | wrong)
