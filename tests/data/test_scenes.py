"""Scenes: what the targets say is what the pixels show."""

import time

import pytest
import torch

from dlbook.data.images import mnist5k
from dlbook.data.scenes import COLOURS, OBJECTS, SIDES, _photographs, _place, _sentence, _sprites, scenes


@pytest.fixture(scope="module")
def made():
    return scenes(60, most=3, fewest=0, seed=4)


def test_shapes_dtypes_and_ranges(made):
    assert made.images.shape == (60, 3, 96, 96)
    assert made.images.dtype == made.targets.dtype == torch.float32
    assert made.images.is_contiguous()
    assert 0 <= made.images.min() < 0.1 < 0.9 < made.images.max() <= 1
    assert made.targets.shape == (60, 3, 5)
    assert made.instances.shape == (60, 96, 96)
    assert made.colours.shape == (60, 3)
    assert len(made.captions) == 60
    assert made.classes == OBJECTS


def test_empty_places_are_the_last_and_all_numbers_of_objects_occur(made):
    present = made.targets[..., 0] >= 0
    assert present.sum(1).unique().tolist() == [0, 1, 2, 3]
    assert (present.int().diff(dim=1) <= 0).all()
    assert (made.targets[~present] == torch.tensor([-1.0, 0, 0, 0, 0])).all()
    assert ((made.colours >= 0) == present).all()


def test_a_box_is_the_extent_of_its_object_where_nothing_covers_it():
    made = scenes(40, most=1, seed=7)
    for targets, instances in zip(made.targets, made.instances, strict=True):
        _, x1, y1, x2, y2 = targets[0].tolist()
        y, x = torch.where(instances == 1)
        assert (x1, y1, x2, y2) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert max(x2 - x1, y2 - y1) in range(min(SIDES) - 2, max(SIDES) + 1)


def test_every_visible_pixel_lies_in_the_box_of_its_object(made):
    for targets, instances in zip(made.targets, made.instances, strict=True):
        for place, (kind, x1, y1, x2, y2) in enumerate(targets.tolist()):
            y, x = torch.where(instances == place + 1)
            assert (kind < 0) <= (len(y) == 0)
            assert ((x >= x1) & (x < x2) & (y >= y1) & (y < y2)).all()


def test_objects_have_the_colour_that_is_named(made):
    colours = torch.tensor(list(COLOURS.values()))
    for image, instances, dyes in zip(made.images, made.instances, made.colours, strict=True):
        for place, dye in enumerate(dyes.tolist()):
            pixels = image[:, instances == place + 1]  # (3, pixels)
            if pixels.shape[1] > 30:
                median = pixels.median(dim=1).values
                assert (colours - median).square().sum(1).argmin() == dye


def test_the_class_of_a_pixel_is_that_of_the_object_seen_there(made):
    for kinds, instances, classes in zip(made.targets[..., 0], made.instances, made.semantic, strict=True):
        assert (classes[instances == 0] == 0).all()
        for place, kind in enumerate(kinds.tolist()):
            assert (classes[instances == place + 1] == kind + 1).all()


def test_the_same_seed_makes_the_same_scenes_and_another_one_others():
    one, again, other = scenes(5, seed=2), scenes(5, seed=2), scenes(5, seed=3)
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.targets, again.targets)
    assert one.captions == again.captions
    assert not torch.equal(one.images, other.images)


def test_objects_seldom_cover_one_another():
    made = scenes(400, most=4, fewest=4, seed=1)
    boxes = made.targets[..., 1:]
    start, end = (
        torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2]),
        torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:]),
    )
    overlap = (end - start).clamp(min=0).prod(-1).triu(1).sum((1, 2))
    assert (overlap > 0).float().mean() < 0.25


def test_the_first_place_that_covers_nothing_is_taken():
    generator = torch.Generator().manual_seed(0)
    corners = _place(torch.ones(200, 2, dtype=torch.bool), torch.full((200, 2), 20), 96, generator)
    apart = (corners[:, 0] - corners[:, 1]).abs().amax(1) >= 20
    assert apart.all()


def test_splits_share_neither_objects_nor_photographs():
    train, test = _sprites("train", ("3",))[0], _sprites("test", ("3",))[0]
    assert (len(train), len(test)) == ((mnist5k().train_labels == 3).sum(), (mnist5k().test_labels == 3).sum())
    assert not {picture.numpy().tobytes() for picture in train} & {picture.numpy().tobytes() for picture in test}
    for left, right in zip(_photographs("train", 96)[::3], _photographs("test", 96)[::3], strict=False):
        assert left.shape[0] == right.shape[0] == 3
    assert not torch.equal(scenes(3, seed=1).images, scenes(3, seed=1, split="test").images)


def test_an_enlarged_object_fills_its_square():
    sprites, starts = _sprites("train", ("0", "giraffe"))
    assert starts.tolist() == [0, 400, len(sprites)]
    seen = sprites[:, 0] > 127
    longer = torch.maximum(seen.any(1).sum(1), seen.any(2).sum(1))
    assert (longer >= 36).float().mean() > 0.95


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([], "nothing"),
        ([((5.0, 5.0), "red 3")], "a red 3"),
        ([((5.0, 5.0), "red 3"), ((30.0, 9.0), "blue cat")], "a red 3 left of a blue cat"),
        ([((5.0, 5.0), "red 3"), ((9.0, 30.0), "blue cat")], "a red 3 above a blue cat"),
        ([((5.0, 30.0), "red 3"), ((9.0, 5.0), "blue cat")], "a red 3 below a blue cat"),
        (
            [((5.0, 5.0), "red 3"), ((6.0, 5.0), "blue cat"), ((7.0, 5.0), "white 8")],
            "a red 3, a blue cat and a white 8",
        ),
    ],
)
def test_sentences(found, sentence):
    assert _sentence(found) == sentence


def test_captions_name_every_object(made):
    names = tuple(COLOURS)
    for caption, kinds, dyes in zip(
        made.captions, made.targets[..., 0].long().tolist(), made.colours.tolist(), strict=True
    ):
        for kind, dye in zip(kinds, dyes, strict=True):
            assert kind < 0 or f"{names[dye]} {made.classes[kind]}" in caption


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"split": "val"}, "got 'val'"),
        ({"size": 40}, "got 40"),
        ({"most": 2, "fewest": 3}, "got fewest=3, most=2"),
        ({"objects": ("cat", "cat")}, r"got \('cat', 'cat'\)"),
        ({"objects": ("unicorn",)}, "unicorn"),
        ({"objects": ()}, r"got \(\)"),
    ],
)
def test_what_cannot_be_made_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        scenes(**{"count": 2} | wrong)


def test_two_thousand_a_second():
    scenes(10)
    best = min(_seconds() for _ in range(3))
    assert best < 1


def _seconds() -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.process_time()
        scenes(2000)
        return time.process_time() - start
    finally:
        torch.set_num_threads(threads)
