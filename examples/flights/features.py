"""Features of the flights that left New York City in 2013.

`time_hour` is UTC; the columns year, month, day, hour and minute are New York's local time.
"""

import virtualfs as vfs
from virtualfs import _

airport = vfs.Entity("airport", join_keys={"origin": "string"}, description="Airport of departure")
plane = vfs.Entity("plane", join_keys={"tailnum": "string"}, description="One aircraft")

# 1. Weather: hourly readings. One that is older than three hours says nothing any more.
airport_weather = vfs.FeatureView(
    "airport_weather",
    source=vfs.Source("weather", table="weather", event_timestamp="time_hour"),
    entities=[airport],
    features=[
        vfs.Feature("temp", description="Temperature, degrees Fahrenheit"),
        vfs.Feature("wind_speed", description="Wind speed, miles per hour"),
        vfs.Feature("precip", description="Rain or snow, inches per hour"),
        vfs.Feature("visib", description="Visibility, miles"),
        vfs.Feature("freezing", _.temp <= 32, description="Whether water freezes"),
        vfs.Feature("poor_visibility", "visib < 3", description="Whether pilots see under 3 miles"),
    ],
    ttl="3h",
    description="Hourly weather at the airport of departure",
)

# 2. Planes: a table without times. It holds the latest facts only, and the plan says so.
plane_facts = vfs.FeatureView(
    "plane_facts",
    source=vfs.Source("planes", table="planes"),
    entities=[plane],
    features=[
        vfs.Feature("year", description="Year of manufacture"),
        vfs.Feature("manufacturer"),
        vfs.Feature("seats", description="Number of seats"),
        vfs.Feature("engine", description="Kind of engine"),
    ],
    description="Facts of the aircraft",
)

# 3. Flights: the last departure of the same plane. The row is dated by the moment the plane left,
#    and is taken as known one hour later. Many flights leave a little early (43 minutes at most),
#    so without the delay a flight would find its own outcome among its features.
plane_last_flight = vfs.FeatureView(
    "plane_last_flight",
    source=vfs.Source(
        "departures",
        query="""
            SELECT tailnum, origin, dest, distance, dep_delay,
                   time_hour + to_minutes(minute) + to_minutes(dep_delay) AS departed_at
            FROM flights
            WHERE dep_delay IS NOT NULL
        """,
        event_timestamp="departed_at",
        availability_delay="1h",
    ),
    entities=[plane],
    features=[
        vfs.Feature("last_delay", "dep_delay", description="Minutes late when it last left"),
        vfs.Feature("last_origin", "origin"),
        vfs.Feature("last_distance", "distance", description="Miles flown"),
    ],
    ttl="7d",
    description="The plane's last departure that is known",
)

departure_delay = vfs.FeatureService(
    "departure_delay",
    [airport_weather, plane_facts[["year", "seats"]], plane_last_flight],
    description="Predicts how late a flight will leave, at its scheduled departure",
)
