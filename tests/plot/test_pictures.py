"""Lines, images, heat maps, surfaces and intervals show the numbers they are given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose

from dlbook.plot import heatmap, images, intervals, lines, surface
from dlbook.plot.style import COLORS


def estimate(mean: float, low: float, high: float) -> SimpleNamespace:
    return SimpleNamespace(mean=mean, low=low, high=high)


def labelled(ax: Axes) -> bool:
    return bool(ax.get_xlabel() and ax.get_ylabel())


def test_lines_draw_tensors_on_one_axis_with_color_and_dash() -> None:
    y = torch.tensor([1.0, 4.0, 9.0], requires_grad=True)
    ax = lines(
        [1, 2, 3], {"a": y, "b": torch.tensor([1, 2, 3], dtype=torch.bfloat16)}, xlabel="x", ylabel="y",
        bands={"a": ([0, 3, 8], [2, 5, 10])}, yscale="log",
    )  # fmt: skip
    assert_allclose(ax.lines[0].get_ydata(), [1, 4, 9])
    assert_allclose(ax.lines[1].get_ydata(), [1, 2, 3])
    assert labelled(ax)
    assert ax.get_yscale() == "log"
    assert len(ax.collections) == 1
    assert [line.get_color() for line in ax.lines] == list(COLORS[:2])
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_lines_drawn_later_take_the_next_color() -> None:
    ax = lines([1, 2], {"a": [1, 2]}, xlabel="x", ylabel="y")
    assert lines([1, 2], {"b": [2, 1]}, xlabel="x", ylabel="y", ax=ax) is ax
    assert ax.lines[1].get_color() == COLORS[1]


@pytest.mark.parametrize(
    ("x", "series", "bands", "message"),
    [
        ([1, 2, 3], {}, None, "series is empty"),
        ([1, 2, 3], {"a": [1, 2]}, None, "series 'a' has 2 values where 3 belong"),
        ([1, 2], {"a": [[1, 2]]}, None, r"one axis, got shape \(1, 2\)"),
        ([], {"a": []}, None, "x is empty"),
        ([1, 2], {"a": [1, 2]}, {"b": ([0, 1], [2, 3])}, r"bands \['b'\] belong to none of the series \['a'\]"),
        ([1, 2], {"a": [1, 2]}, {"a": ([0], [2, 3])}, "band of 'a' has 1 values where 2 belong"),
        ([1, 2], {"a": ["p", "q"]}, None, "must hold numbers"),
    ],
)
def test_lines_refuse_what_does_not_fit(x: object, series: dict, bands: dict | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lines(x, series, xlabel="x", ylabel="y", bands=bands)


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 1, 4, 6), (5, 3, 4, 6), (5, 4, 6, 3), (5, 4, 6, 1)])
def test_images_of_every_layout_show_the_same_pixels(shape: tuple[int, ...]) -> None:
    data = torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape) / np.prod(shape)
    grid = images(data, titles=list("abcde"))
    assert [ax.get_title() for ax in grid] == list("abcde")
    shown = np.asarray(grid[2].get_images()[0].get_array())
    third = data[2].permute(1, 2, 0) if shape[1] in (1, 3) else data[2]
    assert_allclose(shown, third.squeeze().numpy(), atol=1e-6)


def test_images_share_one_scale() -> None:
    grid = images(np.stack([np.zeros((3, 4)), np.full((3, 4), 7.0)]))
    assert [ax.get_images()[0].get_clim() for ax in grid] == [(0.0, 7.0), (0.0, 7.0)]
    assert images(np.zeros((2, 3, 4), dtype=np.uint8))[0].get_images()[0].get_clim() == (0.0, 255.0)
    assert images(np.full((2, 3, 4), 0.5))[0].get_images()[0].get_clim() == (0.0, 1.0)
    colour = images(np.full((1, 4, 5, 3), 3.0), value_range=(2.0, 6.0))[0].get_images()[0].get_array()
    assert_allclose(colour, np.full((4, 5, 3), 0.25))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (np.zeros((4, 6)), {}, r"got \(4, 6\)"),
        (np.zeros((2, 5, 4, 6)), {}, r"got \(2, 5, 4, 6\)"),
        (np.zeros((0, 4, 6)), {}, r"data is empty, shape \(0, 4, 6\)"),
        (np.zeros((2, 4, 6)), {"titles": ["a"]}, "1 titles for 2 images"),
        (np.zeros((2, 4, 6)), {"value_range": (1.0, 1.0)}, "value_range must rise"),
        (np.full((2, 4, 6), np.nan), {}, "not finite"),
    ],
)
def test_images_refuse_what_does_not_fit(data: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        images(data, **options)


def test_heatmap_writes_values_that_can_be_read() -> None:
    ax = heatmap(torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]), xlabel="x", ylabel="y", label="v", columns="abc")
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2", "3", "4", "5"]
    assert [to_hex(text.get_color()) for text in ax.texts][::5] == ["#000000", "#ffffff"]  # on white, on dark blue
    assert labelled(ax)
    assert ax.figure.axes[1].get_ylabel() == "v"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list("abc")
    assert not heatmap(np.eye(12), xlabel="x", ylabel="y", label="v").texts


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros(3), {}, r"got shape \(3,\)"),
        (np.zeros((0, 3)), {}, "values is empty"),
        (np.zeros((2, 3)), {"rows": ["a"]}, "1 names for 2 rows"),
        (np.full((2, 3), np.nan), {}, "none of the 6 values is finite"),
    ],
)
def test_heatmap_refuses_what_does_not_fit(values: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heatmap(values, xlabel="x", ylabel="y", label="v", **options)


def test_surface_calls_the_function_once_and_keeps_x_across() -> None:
    calls = []

    def plane(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        calls.append((x.shape, y.shape))
        assert x[0, 0] == -1.0 == x[-1, 0]
        assert y[0, 0] == 2.0 == y[0, -1]
        return x + 10 * y

    path = torch.tensor([[0.0, 2.5], [0.5, 3.0], [1.0, 3.5]])
    ax = surface(plane, (-1, 1), (2, 4), xlabel="u", ylabel="v", label="height", points=7, paths={"a": path})
    assert calls == [((7, 7), (7, 7))]
    assert labelled(ax)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1, 1), (2, 4))
    assert_allclose(np.column_stack(ax.lines[0].get_data()), path)
    assert ax.figure.axes[1].get_ylabel() == "height"


def test_surface_spaces_levels_by_powers_when_asked() -> None:
    ax = surface(
        lambda x, y: (x**2 + y**2) ** 3, (-2, 2), (-2, 2), xlabel="u", ylabel="v", label="h", log=True, levels=10
    )
    levels = np.asarray(ax.collections[0].levels)
    assert_allclose(levels[1:] / levels[:-1], levels[1] / levels[0])
    assert_allclose(levels[-1], 512.0)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda x, y: x[0], {}, r"returned shape \(121,\)"),
        (lambda x, y: x * torch.nan, {}, "none of the function's 14641 values is finite"),
        (lambda x, y: -(x**2) - 1, {"log": True}, "log levels need values above 0"),
        (lambda x, y: x + y, {"paths": {"a": [[1, 2, 3]]}}, r"path 'a' must be \(steps, 2\), got shape \(1, 3\)"),
    ],
)
def test_surface_refuses_what_does_not_fit(function: object, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surface(function, (-1, 1), (-1, 1), xlabel="u", ylabel="v", label="h", **options)
    with pytest.raises(ValueError, match=r"xlim must rise, got \(1, 1\)"):
        surface(lambda x, y: x, (1, 1), (-1, 1), xlabel="u", ylabel="v", label="h")


def test_intervals_draw_mean_and_ends_from_the_top() -> None:
    ax = intervals({"a": estimate(2, 1, 4), "b": estimate(3, 2.5, 3.5)}, xlabel="score", margin=1.5)
    assert_allclose(ax.lines[0].get_xdata(), [1, 4])
    assert_allclose(ax.lines[1].get_data(), [[2], [0]])
    assert_allclose(ax.lines[3].get_data(), [[3], [1]])
    assert ax.yaxis_inverted()
    assert_allclose(ax.lines[4].get_xdata(), [1.5, 1.5])
    assert ax.get_xlabel() == "score"


def test_intervals_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="estimates is empty"):
        intervals({}, xlabel="score")
    with pytest.raises(ValueError, match="'a': the mean 5 is not between low=1 and high=4"):
        intervals({"a": estimate(5, 1, 4)}, xlabel="score")
