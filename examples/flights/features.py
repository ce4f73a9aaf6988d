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

# 4. Flights again: how late they have been of late. All flights of one hour share `time_hour`, so a
#    window that ended at it inclusively would count the very flight that is predicted. A delay is
#    known when the plane has left, and a cancellation at the latest when it should have: that is
#    the created timestamp, and late_data="exclude" leaves out what was not yet known.
carrier = vfs.Entity("carrier", join_keys={"carrier": "string"}, description="Airline")

flights = vfs.Source(
    "flights",
    query="""
        SELECT carrier, origin, tailnum, dest, dep_delay, time_hour,
               time_hour + to_minutes(minute) + to_minutes(coalesce(dep_delay, 0)) AS known_at
        FROM flights
    """,
    event_timestamp="time_hour",
    created_timestamp="known_at",
)


def delays(name: str, entity: vfs.Entity) -> vfs.FeatureView:
    """Departures, and how late they were, over an hour, a day, a week and a month."""
    windows = ("1h", "1d", "7d", "30d")
    return vfs.FeatureView(
        name,
        source=flights,
        entities=[entity],
        features=[
            *(vfs.Aggregate("dep_delay", "count", w, name=f"departures_{w}") for w in windows),
            *(vfs.Aggregate("dep_delay", f, w) for f in ("mean", "max", "std") for w in windows),
            vfs.Aggregate("*", "count", "7d", name="scheduled_7d"),
            vfs.Aggregate("*", "count", "7d", where=_.dep_delay.isnull(), name="cancelled_7d"),
        ],
        description=f"Delays by {entity.name} over an hour, a day, a week and a month",
    )


carrier_delays = delays("carrier_delays", carrier)
airport_delays = delays("airport_delays", airport)

plane_route = vfs.FeatureView(
    "plane_route",
    source=flights,
    entities=[plane],
    features=[vfs.Aggregate("dest", "last", "7d", n=5, name="last_destinations")],
    description="Where the plane last flew to",
)

# 5. Computed when asked for, of the above: in the same query in training, in process online.
cancellations = vfs.OnDemandFeatureView(
    "cancellations",
    inputs=[carrier_delays, airport_delays],
    features=[
        vfs.Feature(
            "carrier_cancelled_share",
            _.carrier_delays__cancelled_7d / _.carrier_delays__scheduled_7d,
            description="Share of the carrier's flights in a week that never left",
        ),
        vfs.Feature(
            "airport_cancelled_share",
            _.airport_delays__cancelled_7d / _.airport_delays__scheduled_7d,
            description="Share of the airport's flights in a week that never left",
        ),
    ],
)

departure_delay = vfs.FeatureService(
    "departure_delay",
    [airport_weather, plane_facts[["year", "seats"]], plane_last_flight],
    description="Predicts how late a flight will leave, at its scheduled departure",
)

delay_history = vfs.FeatureService(
    "delay_history",
    [carrier_delays, airport_delays, plane_route, cancellations],
    description="Predicts how late a flight will leave, at the hour of its departure",
)
