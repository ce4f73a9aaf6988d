"""The definitions of this deployment; `virtualfs scan` writes such a file for your own tables."""

import virtualfs as vfs

customer = vfs.Entity("customer", join_keys={"customer_id": "int64"})
orders = vfs.Source("orders", table="orders", event_timestamp="ordered_at")
customer_orders = vfs.FeatureView(
    "customer_orders",
    source=orders,
    entities=[customer],
    features=[
        vfs.Aggregate("*", "count", "30d", name="orders_30d"),
        vfs.Aggregate("amount", "sum", "30d", name="spent_30d"),
    ],
)
churn = vfs.FeatureService("churn", [customer_orders])
