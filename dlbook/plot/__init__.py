"""Figures in the book's style: every function draws with matplotlib and returns the axes it drew on."""

from dlbook.plot.computation import computation
from dlbook.plot.curves import LiveCurves, curves
from dlbook.plot.graph import graph
from dlbook.plot.heatmap import heatmap
from dlbook.plot.images import images
from dlbook.plot.intervals import intervals
from dlbook.plot.lines import lines
from dlbook.plot.style import COLORS, use_style
from dlbook.plot.surface import surface

__all__ = [
    "COLORS",
    "LiveCurves",
    "computation",
    "curves",
    "graph",
    "heatmap",
    "images",
    "intervals",
    "lines",
    "surface",
    "use_style",
]
