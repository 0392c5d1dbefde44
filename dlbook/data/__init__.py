"""Data: what is embedded in packages, what is downloaded once, and batches of it."""

from dlbook.data.batches import Batches

__all__ = ["Batches"]
