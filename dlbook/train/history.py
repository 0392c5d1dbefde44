"""The numbers that training leaves behind."""


class History(dict[str, list[float]]):
    """Names to lists with one number for every epoch, such as ``loss``, ``val_loss``, ``val_accuracy``.

    Example:
        >>> history = History()
        >>> history.append(loss=0.5, val_loss=0.75)
        >>> history["loss"], history.epochs
        ([0.5], 1)
        >>> print(history)
        epoch 1: loss 0.5000, val_loss 0.7500
    """

    @property
    def epochs(self) -> int:
        """How many epochs were recorded."""
        return max((len(numbers) for numbers in self.values()), default=0)

    def append(self, **numbers: float) -> None:
        """Add one epoch.

        Raises:
            ValueError: If the names are not those of the epochs before.
        """
        if self and set(numbers) != set(self):
            raise ValueError(f"earlier epochs recorded {sorted(self)}, this one {sorted(numbers)}")
        for name, number in numbers.items():
            self.setdefault(name, []).append(number)

    def __str__(self) -> str:
        last = ", ".join(f"{name} {numbers[-1]:.4f}" for name, numbers in self.items())
        return f"epoch {self.epochs}: {last}" if self else "no epoch yet"
