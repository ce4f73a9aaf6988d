"""The flights' training set against an answer computed another way: pandas, over all rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from virtualfs import FeatureStore
from virtualfs.cli.demo import _SPINE, _make_project


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("flights")
    _make_project(folder)
    with FeatureStore(folder) as store:
        store.apply()
        dataset = store.get_historical_features(_SPINE, "departure_delay")
        frame = dataset.to_pandas()
        streamed = dataset.to_pyarrow_batches().read_all()
        assert streamed.equals(dataset.to_pyarrow())
    return frame, folder


def test_weather_is_the_last_reading_within_three_hours(
    answer: tuple[pd.DataFrame, Path],
) -> None:
    frame, folder = answer
    weather = pq.read_table(folder / "data" / "weather.parquet").to_pandas()
    weather["read_at"] = weather["time_hour"]
    left = frame.reset_index().sort_values("event_timestamp", kind="stable")
    expected = (
        pd.merge_asof(
            left[["index", "origin", "event_timestamp"]],
            weather[["origin", "time_hour", "read_at", "temp"]].sort_values("time_hour"),
            left_on="event_timestamp",
            right_on="time_hour",
            by="origin",
            tolerance=pd.Timedelta("3h"),
        )
        .set_index("index")
        .sort_index()
    )
    pd.testing.assert_series_equal(
        frame["temp"], expected["temp"], check_names=False, check_index_type=False
    )


def test_the_planes_last_departure_was_known_for_an_hour(
    answer: tuple[pd.DataFrame, Path],
) -> None:
    frame, folder = answer
    flights = pq.read_table(folder / "data" / "flights.parquet").to_pandas()
    flights = flights.dropna(subset=["dep_delay", "tailnum"])
    flights["departed_at"] = (
        flights["time_hour"]
        + pd.to_timedelta(flights["minute"], unit="m")
        + pd.to_timedelta(flights["dep_delay"], unit="m")
    )
    flights["known_at"] = flights["departed_at"] + pd.Timedelta("1h")
    # Two departures of one plane in one minute are a mistake in the records; either may win.
    flights = flights[~flights.duplicated(["tailnum", "departed_at"], keep=False)]
    left = frame.dropna(subset=["tailnum"]).reset_index()
    left = left.sort_values("event_timestamp", kind="stable")
    expected = pd.merge_asof(
        left[["index", "tailnum", "event_timestamp", "last_delay"]],
        flights[["tailnum", "known_at", "departed_at", "dep_delay"]].sort_values("known_at"),
        left_on="event_timestamp",
        right_on="known_at",
        by="tailnum",
    )
    over = expected["event_timestamp"] - expected["departed_at"] > pd.Timedelta("7D")
    expected.loc[over, "dep_delay"] = None
    differ = ~(
        expected["dep_delay"].eq(expected["last_delay"].astype("float64"))
        | (expected["dep_delay"].isna() & expected["last_delay"].isna())
    )
    assert differ.mean() < 0.001


def test_no_flight_sees_its_own_delay(answer: tuple[pd.DataFrame, Path]) -> None:
    frame, _ = answer
    first = frame.dropna(subset=["tailnum"]).groupby("tailnum").head(1)
    assert first["last_delay"].isna().all()
