"""Explorers: figures with controls, live where a kernel runs and still moving in the built book."""

from dlbook.explore.activation import explore_activations
from dlbook.explore.bump import explore_bumps
from dlbook.explore.descent import explore_descent
from dlbook.explore.explorer import Explorer

__all__ = ["Explorer", "explore_activations", "explore_bumps", "explore_descent"]
