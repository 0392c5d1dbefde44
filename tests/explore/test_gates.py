"""The explorer of an LSTM's gates shows what the LSTM computed."""

import pytest
import torch
from numpy.testing import assert_allclose

from dlbook.explore.gates import explore_gates
from dlbook.models.lstm import LSTM


def opened() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return {name: part[0] for name, part in LSTM(2, 5).opened(torch.randn(1, 9, 2)).items()}


def test_curves_are_the_gates_and_the_memory_of_the_unit_that_the_marks_change_most() -> None:
    parts = opened()
    explorer = explore_gates(parts, [0, 4], count=3, wait=2)
    c = parts["c"]
    first, second, usual = c[2], c[6] - c[3], torch.stack([c[t + 3] - c[t] for t in range(6)])
    score = torch.stack([first, second]).sub(usual.mean(0)).abs().div(usual.std(0)).amin(0)
    for rank, unit in enumerate(score.argsort(descending=True)[:3].tolist(), start=1):
        above, below = explorer.draw(rank=rank).axes
        for line, name in zip(above.lines, "ifo", strict=False):
            assert_allclose(line.get_ydata(), parts[name][:, unit])
        assert_allclose(below.lines[0].get_ydata(), parts["c"][:, unit])
        assert [line.get_xdata()[0] for line in below.lines[1:]] == [0, 4]
        assert f"unit {unit}:" in explorer.alt(rank=rank)
        assert f"by {first[unit]:+.2f}, {second[unit]:+.2f}" in explorer.alt(rank=rank)


def test_a_mark_near_the_end_waits_no_longer_than_the_sequence() -> None:
    parts = opened()
    change = parts["c"][8] - parts["c"][6]
    # nine steps have no two changes over eight to compare with: the largest comes first
    assert f"by {change[change.abs().argmax()]:+.2f}" in explore_gates(parts, [7], count=1, wait=7).alt(rank=1)


def test_page_stays_small() -> None:
    explorer = explore_gates(opened(), [2], count=5)
    assert explorer.html.count("data:image/png") == 5 + 1
    assert len(explorer.html) < 200_000


@pytest.mark.parametrize("marks", [[], [9], [-1]])
def test_marks_have_to_be_steps(marks: list[int]) -> None:
    with pytest.raises(ValueError, match="marks must be steps within 0 to 8"):
        explore_gates(opened(), marks)


@pytest.mark.parametrize(("count", "wait"), [(0, 5), (6, 5), (3, -1)])
def test_count_has_to_be_within_the_units_and_wait_not_negative(count: int, wait: int) -> None:
    with pytest.raises(ValueError, match="count must be within 1 to 5"):
        explore_gates(opened(), [2], count=count, wait=wait)
