"""Gabor functions, and the one that comes nearest to a given filter.

A Gabor function is a wave under a bell. Gabor (1946) found that no function is sharper in space and frequency at once;
Jones & Palmer (1987), https://doi.org/10.1152/jn.1987.58.6.1233, fitted it to what single cells of a cat's visual cortex
respond to.

Chapter: chapters/03-convolutional-networks.ipynb

Letters for shapes in this file:
    S  side of a filter, pixels
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GaborFit:
    """The Gabor function nearest to a filter.

    Attributes:
        values: The function at the filter's pixels.
        r2: Share of the filter's variance that it explains, at most 1.
        angle: Direction across the stripes, radians, 0 to pi, counted from the columns' axis to the rows' axis.
        frequency: Of the wave, cycles a pixel.
        across: Standard deviation of the bell across the stripes, pixels.
        along: Standard deviation of the bell along the stripes, pixels.

    Shapes:
        ``values`` (S, S).
    """

    values: Array
    r2: float
    angle: float
    frequency: float
    across: float
    along: float


def waves(side: int, x0: float, y0: float, angle: float, frequency: float, across: float, along: float) -> Array:
    """The cosine and the sine wave under one bell: every Gabor function is a sum of multiples of the two.

    With u across and v along the stripes::

        exp(-(u / across)^2 / 2 - (v / along)^2 / 2) * cos(2 pi frequency u),    and the same with sin

    Args:
        side: Pixels of a side, S.
        x0: The bell's middle, pixels right of the picture's middle.
        y0: The same, downwards.
        angle: Direction across the stripes, radians.
        frequency: Cycles a pixel.
        across: Standard deviation across the stripes, pixels.
        along: The same along them.

    Shapes:
        returns: (2, S, S).

    Example:
        >>> cosine, sine = waves(5, 0, 0, 0, 0.25, 1.0, 2.0)
        >>> round(float(cosine[2, 2]), 6), round(float(sine[2, 2]), 6)
        (1.0, 0.0)
    """
    line = np.arange(side) - (side - 1) / 2
    x, y = line - x0, (line - y0)[:, None]  # (S,), (S, 1): y0 moves along the rows
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x  # (S, S)
    bell = np.exp(-0.5 * (u / across) ** 2 - 0.5 * (v / along) ** 2)
    return np.stack([bell * np.cos(2 * np.pi * frequency * u), bell * np.sin(2 * np.pi * frequency * u)])


def fit_gabor(picture: Array) -> GaborFit:
    """The Gabor function nearest to a filter, by least squares.

    Six numbers are searched for by ``scipy.optimize.least_squares``: the bell's middle and widths, the wave's angle and
    frequency. For each of them the best height and phase follow from a linear problem of two unknowns ("variable
    projection"). The search starts from the filter's strongest frequency and the middle of its energy, with a narrow and a
    wide bell, and the better of the two counts. The bell's middle stays on the filter, its widths between
    half a pixel and a side, the frequency at most half a cycle a pixel.

    Args:
        picture: The filter; its mean is taken away first.

    Shapes:
        ``picture`` (S, S), S at least 4.

    Raises:
        ValueError: If it is not a square of at least 4 pixels a side, is not finite, or is one number everywhere.

    Example:
        >>> cosine, sine = waves(12, 1.0, -0.5, 0.7, 0.15, 2.0, 2.5)
        >>> round(fit_gabor(cosine - 0.5 * sine).r2, 3)
        1.0
    """
    picture = np.asarray(picture, dtype=np.float64)
    if picture.ndim != 2 or picture.shape[0] != picture.shape[1] or len(picture) < 4:
        raise ValueError(f"a filter must be a square of at least 4 pixels a side, got shape {picture.shape}")
    picture = picture - picture.mean()
    norm = float(np.linalg.norm(picture))
    if not np.isfinite(norm) or norm < 1e-12:
        raise ValueError("the filter is not finite, or the same everywhere")
    picture, side = picture / norm, len(picture)

    from scipy.optimize import least_squares

    half = (side - 1) / 2
    low = np.array([-half, -half, -np.inf, 0.0, 0.5, 0.5])
    high = np.array([half, half, np.inf, 0.5, side, side])
    fits = []
    for width in (side / 6, side / 3):
        start = np.clip([*_middle(picture), *_strongest_wave(picture), width, width], low + 1e-3, high - 1e-3)
        fits.append(
            least_squares(
                lambda p: _projected(picture, p)[0],
                start,
                jac=lambda p: _slopes(picture, p),
                bounds=(low, high),
                max_nfev=25,
            )
        )
    best = min(fits, key=lambda fit: fit.cost)
    residual, values = _projected(picture, best.x)
    angle, frequency, across, along = (float(v) for v in best.x[2:])
    return GaborFit(values * norm, 1 - float(residual @ residual), angle % np.pi, frequency, across, along)


def _projected(picture: Array, numbers: Array) -> tuple[Array, Array]:
    """What is left of the filter (S * S,), and the best sum of the two waves (S, S), both without their mean."""
    basis = waves(len(picture), *numbers).reshape(2, -1)
    basis = basis - basis.mean(1, keepdims=True)
    gram = basis @ basis.T + 1e-9 * np.eye(2)  # the sine vanishes with the frequency
    values = np.linalg.solve(gram, basis @ picture.ravel()) @ basis
    return picture.ravel() - values, values.reshape(picture.shape)


def _slopes(picture: Array, numbers: Array) -> Array:
    """How what is left of the filter changes with each of the six numbers, (S * S, 6).

    Height and phase are held, and then fitted to each change too: Kaufman (1975), https://doi.org/10.1007/BF01932995.
    """
    x0, y0, angle, frequency, across, along = numbers
    side = len(picture)
    pair = waves(side, *numbers)
    basis = pair.reshape(2, -1)
    basis = basis - basis.mean(1, keepdims=True)
    gram = basis @ basis.T + 1e-9 * np.eye(2)
    cosine, sine = np.linalg.solve(gram, basis @ picture.ravel())
    value, by_phase = cosine * pair[0] + sine * pair[1], sine * pair[0] - cosine * pair[1]

    line = np.arange(side) - (side - 1) / 2
    x, y = line - x0, (line - y0)[:, None]
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    by_u = 2 * np.pi * frequency * by_phase - value * u / across**2
    by_v = -value * v / along**2
    changes = np.stack(
        [
            np.sin(angle) * by_v - np.cos(angle) * by_u,  # x0
            -np.sin(angle) * by_u - np.cos(angle) * by_v,  # y0
            v * by_u - u * by_v,  # angle
            2 * np.pi * u * by_phase,  # frequency
            value * u**2 / across**3,
            value * v**2 / along**3,
        ]
    ).reshape(6, -1)
    changes -= changes.mean(1, keepdims=True)
    changes -= (changes @ basis.T) @ np.linalg.solve(gram, basis)
    return -changes.T


def _middle(picture: Array) -> tuple[float, float]:
    """Where the filter's energy is centred, x and y in pixels from the middle."""
    energy, line = picture**2, np.arange(len(picture)) - (len(picture) - 1) / 2
    return float(energy.sum(0) @ line), float(energy.sum(1) @ line)  # the energy sums to 1


def _strongest_wave(picture: Array) -> tuple[float, float]:
    """Angle and frequency where the filter's spectrum, made finer by zeros around the filter, is highest."""
    size = 32
    spectrum = np.abs(np.fft.fft2(picture, (size, size)))
    row, column = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    fy, fx = np.fft.fftfreq(size)[row], np.fft.fftfreq(size)[column]
    return float(np.arctan2(fy, fx)), float(np.hypot(fx, fy))
