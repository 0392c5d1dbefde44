"""Ours against what a reader would take instead, side by side in one run."""
