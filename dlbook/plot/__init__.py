"""Figures in the book's style: every function draws with matplotlib and returns the axes it drew on."""

from dlbook.plot.images import images
from dlbook.plot.lines import lines
from dlbook.plot.style import use_style

__all__ = ["images", "lines", "use_style"]
