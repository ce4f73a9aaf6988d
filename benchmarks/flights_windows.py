"""Delays by carrier over windows, for all flights, against the join on range written by hand.

Departures and the mean, maximum and spread of delays over 1 h, 1 d, 7 d and 30 d, as of each of
336,776 flights. The references are the join as one writes it, which meets 10^9 pairs, and the same
over distinct carriers and hours, which one writes when that takes too long. One process, turn by
turn; the medians and their ratio are printed.

With ``--service`` it is the whole service of the example, ``delay_history``, by event time and as
it was known, without a reference.

Run as ``python benchmarks/flights_windows.py [--service]``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from virtualfs import FeatureStore
from virtualfs.cli.demo import _make_project

ROUNDS = 2
_SPINE = "SELECT carrier, flight, time_hour AS event_timestamp FROM flights"
_HOURS = {"1h": 1, "1d": 24, "7d": 168, "30d": 720}
_ASKED = ", ".join(
    f"{function}(dep_delay) FILTER (WHERE f.time_hour >= moment - INTERVAL {hours} HOUR) "
    f"AS {function}_{name}"
    for name, hours in _HOURS.items()
    for function in ("count", "avg", "max", "stddev_samp")
)
_JOIN = f"""
SELECT n, {_ASKED} FROM ({{spine}}) s JOIN flights f USING (carrier)
WHERE f.time_hour < moment AND f.time_hour >= moment - INTERVAL 720 HOUR GROUP BY n"""
_NUMBERED = f"SELECT row_number() OVER () AS n, carrier, event_timestamp AS moment FROM ({_SPINE})"
_BY_HAND = {
    "join": f"""
        WITH spine AS MATERIALIZED ({_NUMBERED})
        SELECT s.*, a.* EXCLUDE n FROM spine s
        LEFT JOIN ({_JOIN.format(spine="FROM spine")}) a USING (n) ORDER BY n""",
    "join, each hour once": f"""
        WITH spine AS MATERIALIZED ({_NUMBERED}), moments AS MATERIALIZED (
            SELECT carrier, moment, min(n) AS n FROM spine GROUP BY ALL)
        SELECT s.*, a.* EXCLUDE n FROM spine s JOIN moments m USING (carrier, moment)
        LEFT JOIN ({_JOIN.format(spine="FROM moments")}) a ON m.n = a.n ORDER BY s.n""",
}


def whole_service() -> None:
    """Time the example's service, rows that arrived later counting or not."""
    spine = "SELECT carrier, origin, tailnum, flight, time_hour AS event_timestamp FROM flights"
    with tempfile.TemporaryDirectory() as folder:
        _make_project(Path(folder))
        with FeatureStore(folder) as store:
            store.apply()
            for late_data in ("include", "exclude"):
                dataset = store.get_historical_features(spine, "delay_history", late_data)
                started = time.perf_counter()
                rows = dataset.to_pyarrow().num_rows
                seconds = time.perf_counter() - started
                print(f"delay_history, {late_data}: {rows:,} rows, {seconds:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", action="store_true", help="the example's whole service")
    if parser.parse_args().service:
        whole_service()
        return
    with tempfile.TemporaryDirectory() as folder:
        _make_project(Path(folder))
        with FeatureStore(folder) as store:
            store.apply()
            names = ["departures", "dep_delay_mean", "dep_delay_max", "dep_delay_std"]
            features = [f"carrier_delays:{name}_{w}" for name in names for w in _HOURS]
            dataset = store.get_historical_features(_SPINE, features)
            cursor = store.warehouse().connection.con.cursor()
            runs = {"virtualfs": dataset.to_pyarrow}
            for name, query in _BY_HAND.items():
                runs[name] = lambda query=query: cursor.execute(query).to_arrow_table()
            times: dict[str, list[float]] = {name: [] for name in runs}
            for number in range(ROUNDS):
                for name, run in runs.items():
                    if name != "virtualfs" and number:
                        continue  # minutes: once is enough
                    started = time.perf_counter()
                    table = run()
                    times[name].append(time.perf_counter() - started)
                    assert table.num_rows == 336_776
                    print(f"{name:22} {times[name][-1]:8.2f} s", flush=True)
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:22} {median:8.2f} s, VirtualFS takes {medians['virtualfs'] / median:.2f}")


if __name__ == "__main__":
    main()
