"""Training: the loop, what it records, what it measures, and how it resumes."""

from dlbook.train.history import History
from dlbook.train.loop import evaluate, fit
from dlbook.train.metrics import accuracy

__all__ = ["History", "accuracy", "evaluate", "fit"]
