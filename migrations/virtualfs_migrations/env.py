"""Alembic's environment: migrations run on the connection that the caller opened, or as text."""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
context.configure(
    **(
        {"dialect_name": attributes["dialect"], "literal_binds": True}
        if context.is_offline_mode()
        else {"connection": attributes["connection"]}
    ),
    version_table="virtualfs_schema",
    version_table_schema=attributes.get("schema"),
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
