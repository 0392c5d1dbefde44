"""What builds and checks the book. Imported by make.py's tasks and by the tests, never by `dlbook`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def chapters(only: str = "", folder: Path = ROOT / "chapters") -> list[Path]:
    """Return the chapters' notebooks in the order of the book.

    Args:
        only: a choice, separated by spaces or commas: numbers ("2", "02"), the beginning of a name, or paths;
            empty for all of them.
        folder: where the chapters lie.

    Raises:
        ValueError: when a part of `only` fits no chapter.
    """
    every = sorted(folder.glob("*.ipynb"))
    if not only.strip():
        return every
    chosen = set()
    for word in only.replace(",", " ").split():
        start = word.zfill(2) + "-" if word.isdigit() else Path(word).stem
        fitting = {path for path in every if path.stem.startswith(start)}
        if not fitting:
            names = ", ".join(path.stem for path in every) or "none yet"
            raise ValueError(f"no chapter fits {word!r}; the chapters are: {names}")
        chosen |= fitting
    return sorted(chosen)
