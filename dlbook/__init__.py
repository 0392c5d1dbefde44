"""The package behind the book."""
