"""Score departures with features that a typed client reads from the GraphQL API.

Start the server first (``virtualfs demo --serve --port 8000``), or name another URL.
"""

from __future__ import annotations

import sys

from flights_client import FlightsClient


def main(url: str) -> None:
    """Read what the model takes for two departures, and print what it says."""
    with FlightsClient(url=url) as client:
        for origin, tailnum in (("JFK", "N14228"), ("EWR", "N910XJ")):
            found = client.score(origin=origin, tailnum=tailnum).departure_delay
            assert found is not None
            # Every field has its type: an editor knows that wind_speed is a float, or None.
            risk = 2.0 * bool(found.freezing) + (found.wind_speed or 0.0) / 10
            print(
                f"{tailnum} at {origin}: risk {risk:.1f}, from version {found.meta.version} of the "
                f"service; last delay {found.last_delay}, {found.temp} F"
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/graphql")
