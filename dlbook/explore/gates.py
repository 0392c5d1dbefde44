"""Explorer: the gates of an LSTM and its memory while it reads one sequence, unit by unit.

Chapter: chapters/04-recurrent-networks.ipynb

Letters for shapes in this file:
    T  time steps    H  hidden size
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from dlbook.explore.explorer import Explorer
from dlbook.plot.style import COLORS, DASHES, WIDTH

NAMES = {"i": "input gate i", "f": "forget gate f", "o": "output gate o"}


def explore_gates(parts: Mapping[str, Tensor], marks: Sequence[int], *, count: int = 6, wait: int = 5) -> Explorer:
    """Go through the units whose memory is changed most by the marked steps, compared with all others; watch their gates.

    Args:
        parts: The gates i, f and o and the memory c of one sequence, as `dlbook.models.lstm.LSTM.opened` gives them.
        marks: The steps that matter, drawn as upright lines.
        count: How many units are on offer.
        wait: A change is what is left of it so many steps after a mark, so that units come first that keep it. It is
            compared with the mean of all changes over as many steps, in units of their standard deviation.

    Shapes: each of ``parts`` (T, H).

    Raises:
        ValueError: If there is no mark, a mark is none of the steps, wait is negative, or there are fewer units than
            ``count``.

    Example:
        >>> import torch
        >>> from dlbook.models.lstm import LSTM
        >>> opened = LSTM(2, 5).opened(torch.ones(1, 7, 2))
        >>> explore_gates({name: part[0].detach() for name, part in opened.items()}, [3], count=3)
        Explorer(rank: 1, 2, 3)
    """
    c = parts["c"]
    T, H = c.shape
    if not marks or not all(0 <= mark < T for mark in marks):
        raise ValueError(f"marks must be steps within 0 to {T - 1}, got {list(marks)}")
    if not 1 <= count <= H or wait < 0:
        raise ValueError(f"count must be within 1 to {H}, the units there are, and wait from 0, got {count} and {wait}")
    first = torch.tensor(list(marks))
    before = F.pad(c, (0, 0, 1, 0))[first]  # (marks, H), 0 before the first step
    changes = c[(first + wait).clamp(max=T - 1)] - before  # (marks, H)
    usual = c[wait + 1 :] - c[: -wait - 1]  # (T - wait - 1, H), from any step on
    unusual = changes.abs()
    if len(usual) > 1:
        unusual = (changes - usual.mean(0)).abs() / usual.std(0).clamp(min=1e-9)
    units = unusual.amin(0).argsort(descending=True)[:count].tolist()  # the most involved first

    def describe(rank: int) -> str:
        unit = units[rank - 1]
        found = ", ".join(f"{change:+.2f}" for change in changes[:, unit].tolist())
        return f"Rank {rank}, unit {unit}: gates and memory at every step; the marks change the memory by {found}"

    return Explorer(partial(draw, parts=parts, marks=marks, units=units), alt=describe, rank=list(range(1, count + 1)))


def draw(rank: int, *, parts: Mapping[str, Tensor], marks: Sequence[int], units: Sequence[int]) -> Figure:
    """Above the three gates of a unit, below its memory."""
    unit = units[rank - 1]
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 4.6), sharex=True, layout="none")
    figure.subplots_adjust(left=0.12, right=0.97, top=0.86, bottom=0.12, hspace=0.18)
    for number, (name, label) in enumerate(NAMES.items()):
        above.plot(parts[name][:, unit], color=COLORS[number], linestyle=DASHES[number], label=label)
    below.plot(parts["c"][:, unit], color=COLORS[3], linestyle="-")
    for ax in (above, below):
        for mark in marks:
            ax.axvline(mark, color="#767676", linestyle=":", linewidth=1.2)
    reach = 1.1 * float(parts["c"][:, unit].abs().max()) + 1e-9
    above.set(ylim=(-0.04, 1.04), ylabel="gate, 0 is shut")
    below.set(ylim=(-reach, reach), xlabel="step", ylabel="memory c")
    figure.legend(*above.get_legend_handles_labels(), loc="upper center", ncols=3, title=f"unit {unit}")
    return figure
