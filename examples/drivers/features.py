"""Features of drivers, in the shape of Feast's quickstart."""

import virtualfs as vfs
from virtualfs import _

driver = vfs.Entity("driver", join_keys={"driver_id": "int64"})

driver_hourly_stats = vfs.FeatureView(
    "driver_hourly_stats",
    source=vfs.Source(
        "driver_stats",
        path="data/driver_stats.parquet",
        event_timestamp="event_timestamp",
        created_timestamp="created",
    ),
    entities=[driver],
    features=[
        vfs.Feature("conv_rate", description="Share of offers that became trips"),
        vfs.Feature("acc_rate", description="Share of offers accepted"),
        vfs.Feature("avg_daily_trips"),
        vfs.Feature("is_busy", _.avg_daily_trips > 500, description="Over 500 trips a day"),
    ],
    ttl="1d",
)

driver_activity = vfs.FeatureService("driver_activity", [driver_hourly_stats])
