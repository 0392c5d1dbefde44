"""Motions of an arm, as a smartwatch felt them: six waveforms of people who do exercises, without a network.

Letters for shapes in this file:
    N  windows    T  samples in a window    R  recordings
"""

import pickletools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlbook.data.files import check_sha256, package_folder

WATCH_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
CHANNELS = ("acceleration x", "acceleration y", "acceleration z", "rotation x", "rotation y", "rotation z")
RECORDINGS = 140
NUMPY_HEADER = 128  # bytes before the pickle


@dataclass(frozen=True, eq=False)
class Motions:
    """Recordings with the exercise and the person, split by person.

    Attributes:
        recordings: Acceleration and rate of turn along three axes as the watch gave them, 50 samples a second.
        exercises: What was done, an index into ``classes``, int64.
        people: Who did it, 1 to 10, int64.
        classes: Names of the exercises.
        channels: What each column of a recording is.
        source: Where the recordings come from.
        licence: Under which terms.

    Shapes:
        each of ``recordings`` (T, 6), T differs; ``exercises`` and ``people`` (R,).
    """

    recordings: tuple[Tensor, ...]
    exercises: Tensor
    people: Tensor
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    source: str
    licence: str

    def windows(self, length: int, step: int, *, people: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Pieces of equal length, cut from the recordings of some people, and the exercise in each.

        Args:
            length: Samples in a window; 50 are a second.
            step: Samples from the start of one window to that of the next.
            people: Whose recordings.

        Shapes: returns (N, length, 6) and (N,).

        Raises:
            ValueError: If there is no such window.
        """
        pieces, labels = [], []
        for recording, exercise, person in zip(self.recordings, self.exercises, self.people, strict=True):
            if int(person) in people and len(recording) >= length:
                cut = recording.unfold(0, length, step).transpose(1, 2)  # (N, T, 6)
                pieces.append(cut)
                labels.append(exercise.repeat(len(cut)))
        if not pieces:
            raise ValueError(f"no recording of the people {people} has {length} samples")
        return torch.cat(pieces).contiguous(), torch.cat(labels)


def watch() -> Motions:
    """140 recordings of ten people doing seven exercises for the shoulder, each with both arms; 81 minutes in all.

    The file is a pickle, which can run code when it is loaded: it is not loaded. Its bytes are checked against their
    SHA-256, and the numbers are taken from its strings.

    Raises:
        ModuleNotFoundError: If seglearn is not installed.
        ValueError: If its file is not the one this was written for.

    Example:
        >>> data = watch()
        >>> x, y = data.windows(100, 100, people=(1, 2))
        >>> len(data.recordings), x.shape[1:]
        (140, torch.Size([100, 6]))

    Source: D. Burns, N. Leung, M. Hardisty, C. Whyne, P. Henry, S. McLachlin, Shoulder physiotherapy exercise
        recognition, https://arxiv.org/abs/1802.01489, 2018; the part inside seglearn.
    """
    path = package_folder("seglearn", "seglearn==1.2.5", alone=True) / "data" / "watch_dataset.npy"
    content = check_sha256(path.read_bytes(), WATCH_SHA256, f"{path} (right in seglearn 1.2.5)")
    # Python 2 wrote it: bytes stand in it as strings of the characters 0 to 255. Short ones are names.
    strings = (argument for _, argument, _ in pickletools.genops(content[NUMPY_HEADER:]) if isinstance(argument, str))
    blocks = [text.encode("latin-1") for text in strings if len(text) >= RECORDINGS * 8]
    recordings, (exercises, people) = blocks[:RECORDINGS], blocks[RECORDINGS : RECORDINGS + 2]
    return Motions(
        # Channel after channel in the file.
        tuple(torch.from_numpy(np.frombuffer(block).reshape(6, -1).T.astype(np.float32)) for block in recordings),
        torch.from_numpy(np.frombuffer(exercises, np.int64).copy()),
        torch.from_numpy(np.frombuffer(people, np.int64).copy()),
        EXERCISES,
        CHANNELS,
        "exercises for the shoulder felt by a smartwatch (Burns et al., 2018), as packed in seglearn",
        "seglearn: BSD 3-Clause",
    )
