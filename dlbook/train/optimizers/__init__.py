"""Optimisers, one file each, and what they share in `base`."""

from dlbook.train.optimizers.adam import Adam, AdamW
from dlbook.train.optimizers.lion import Lion
from dlbook.train.optimizers.muon import Muon
from dlbook.train.optimizers.rmsprop import RMSprop
from dlbook.train.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Lion", "Muon", "RMSprop"]
