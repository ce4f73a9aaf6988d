"""Alembic's environment: migrations run on the connection that the caller opened."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="virtualfs_schema",
    transaction_per_migration=False,
)
context.run_migrations()
