"""The style: nothing changes before it is asked for, and its colours can be told apart."""

import subprocess
import sys

import matplotlib
import pytest
from matplotlib import pyplot as plt

from dlbook.plot.style import COLORS, DASHES, MARKERS, axes, use_style


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("color", COLORS)
def test_every_color_stands_out_from_white(color: str) -> None:
    assert 1.05 / (luminance(color) + 0.05) >= 4.5


def test_each_color_has_its_own_dash_and_marker() -> None:
    assert len({str(dash) for dash in DASHES}) == len(set(MARKERS)) == len(set(COLORS)) == 7


def test_settings_change_only_when_asked() -> None:
    code = (
        "import matplotlib; before = dict(matplotlib.rcParams)\n"
        "import dlbook.plot, dlbook.explore\n"
        "assert dict(matplotlib.rcParams) == before\n"
        "dlbook.plot.use_style()\n"
        "assert matplotlib.rcParams['figure.constrained_layout.use'] and dict(matplotlib.rcParams) != before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_text_stays_legible_on_a_phone() -> None:
    with matplotlib.rc_context():
        use_style()
        ax = axes()
        ax.set_xlabel("x")
        width = ax.figure.get_size_inches()[0]
        smallest = min(ax.xaxis.label.get_size(), ax.get_xticklabels()[0].get_size())
    # 350 CSS pixels are left of 390; text of 10 pt on 6.4 inches comes to 7.6 of them
    assert smallest / 72 / width * 350 > 7.5
    plt.close("all")
