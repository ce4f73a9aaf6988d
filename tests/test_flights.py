"""The flights' training set against an answer computed another way: pandas, over all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def flights(answer: tuple[pd.DataFrame, Path]) -> pd.DataFrame:
    frame = pq.read_table(answer[1] / "data" / "flights.parquet").to_pandas()
    left = pd.to_timedelta(frame["minute"] + frame["dep_delay"].fillna(0), unit="m")
    frame["known_at"] = frame["time_hour"] + left
    return frame


@pytest.mark.parametrize(
    ("boundary", "late_data"),
    [("inclusive", "include"), ("exclusive", "include"), ("exclusive", "exclude")],
)
def test_windows_of_delays_against_pandas(
    answer: tuple[pd.DataFrame, Path], flights: pd.DataFrame, boundary: Any, late_data: Any
) -> None:
    """All flights are the spine, and a sample of them is computed again, row by row."""
    folder = answer[1]
    spine = (
        "SELECT flight, carrier, origin, tailnum, dest, time_hour AS event_timestamp FROM flights"
    )
    with FeatureStore(folder) as store:
        names = ("carrier_delays", "airport_delays")
        kept = [store.state().objects["feature_view", name].definition for name in names]
        features = [item for item in kept[0]["features"] if "max" not in item["name"]]
        project = store.state().project()
        views = [
            project.views[name].model_copy(
                update={
                    "boundary": boundary,
                    "features": tuple(
                        feature
                        for feature in project.views[name].features
                        if feature.name in {item["name"] for item in features}
                        and "cancelled" not in feature.name
                    ),
                }
            )
            for name in names
        ]
        dataset = store.get_historical_features(
            spine, views, late_data=late_data, full_feature_names=True
        )
        frame = dataset.to_pandas()
    assert len(frame) == 336_776
    assert "prefix sums" in dataset.explain(engine=False)
    for row in frame.sample(60, random_state=1).to_dict("records"):
        at = row["event_timestamp"]
        for view, key in (("carrier_delays", "carrier"), ("airport_delays", "origin")):
            mine = flights[flights[key] == row[key]]
            if late_data == "exclude":
                mine = mine[mine["known_at"] <= at]
            for name, length in (("1h", "1h"), ("1d", "1D"), ("7d", "7D"), ("30d", "30D")):
                since = at - pd.Timedelta(length)
                held = mine[
                    (mine["time_hour"] > since) & (mine["time_hour"] <= at)
                    if boundary == "inclusive"
                    else (mine["time_hour"] >= since) & (mine["time_hour"] < at)
                ]["dep_delay"].dropna()
                assert row[f"{view}__departures_{name}"] == len(held)
                for function in ("mean", "std"):
                    found = row[f"{view}__dep_delay_{function}_{name}"]
                    wanted = getattr(held, function)()
                    assert pd.isna(found) if pd.isna(wanted) else found == pytest.approx(wanted)


def test_the_last_destinations_of_the_plane(
    answer: tuple[pd.DataFrame, Path], flights: pd.DataFrame
) -> None:
    keys = flights.dropna(subset=["tailnum"]).sample(200, random_state=2)
    spine = keys[["tailnum", "time_hour"]].rename(columns={"time_hour": "event_timestamp"})
    with FeatureStore(answer[1]) as store:
        frame = store.get_historical_features(spine, "plane_route").to_pandas()
    for row in frame.to_dict("records"):
        at = row["event_timestamp"]
        mine = flights[
            (flights["tailnum"] == row["tailnum"])
            & (flights["time_hour"] < at)
            & (flights["time_hour"] >= at - pd.Timedelta("7D"))
        ].sort_values(["time_hour", "known_at"], kind="stable")
        wanted = list(mine["dest"].tail(5))
        found = [] if row["last_destinations"] is None else list(row["last_destinations"])
        assert found == wanted


def test_the_share_of_cancelled_flights_is_that_of_counts(
    answer: tuple[pd.DataFrame, Path],
) -> None:
    spine = "SELECT carrier, origin, time_hour AS event_timestamp FROM flights USING SAMPLE 500"
    with FeatureStore(answer[1]) as store:
        frame = store.get_historical_features(
            spine, ["cancellations", "carrier_delays:cancelled_7d", "carrier_delays:scheduled_7d"]
        ).to_pandas()
        known = frame["scheduled_7d"] > 0
        share = frame["cancelled_7d"][known] / frame["scheduled_7d"][known]
        assert known.sum() > 300
        assert frame["carrier_cancelled_share"][known].tolist() == share.tolist()
        assert frame["carrier_cancelled_share"][~known].isna().all()
        online = store.get_online_features("cancellations", [{"carrier": "UA", "origin": "EWR"}])
        (trained,) = (
            store.get_historical_features(
                pd.DataFrame(
                    {"carrier": ["UA"], "origin": ["EWR"], "event_timestamp": [store.now()]}
                ),
                "cancellations",
            )
            .to_pandas()
            .to_dict("records")
        )
    for name in ("carrier_cancelled_share", "airport_cancelled_share"):
        assert online.to_list()[0][name] == trained[name]
        assert 0 < trained[name] < 0.2
