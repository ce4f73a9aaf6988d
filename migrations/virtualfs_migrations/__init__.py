"""Alembic migrations of the registry; see migrations/README.md."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.config import Config

__all__ = ["MIGRATIONS", "Migrations"]

_LOCK = 7_202_613
"""Held on PostgreSQL while tables change, so that of two processes one does it."""


class Migrations:
    """The migrations as the core sees them. Alembic itself is imported only to upgrade."""

    versions = ("0001", "0002", "0003", "0004")
    """The schema versions, oldest first; a test compares them with the scripts."""

    @property
    def head(self) -> str:
        """The newest schema version."""
        return self.versions[-1]

    def config(self, output: io.StringIO | None = None) -> Config:
        """Return Alembic's configuration of this package."""
        from alembic.config import Config

        config = Config(output_buffer=output)
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        return config

    def upgrade(self, engine: sa.Engine, schema: str | None = None) -> None:
        """Create the tables or bring them to :attr:`head`, in one transaction."""
        self._run(engine, schema, "upgrade", "head")

    def downgrade(self, engine: sa.Engine, version: str, schema: str | None = None) -> None:
        """Take the tables back to an older form, in one transaction.

        Raises
        ------
        RuntimeError
            The older form cannot hold what is there; nothing was changed.
        """
        self._run(engine, schema, "downgrade", version)

    def sql(self, dialect: str, version: str | None, schema: str | None = None) -> str:
        """Return the statements that bring tables of a version (None: none yet) to the newest."""
        from alembic import command

        output = io.StringIO()
        config = self.config(output)
        config.attributes.update(dialect=dialect, schema=schema)
        command.upgrade(config, f"{version}:head" if version else "head", sql=True)
        made = f'CREATE SCHEMA IF NOT EXISTS "{schema}";\n\n' if schema and not version else ""
        return made + output.getvalue()

    def _run(self, engine: sa.Engine, schema: str | None, direction: str, version: str) -> None:
        from alembic import command

        config = self.config()
        with engine.execution_options(virtualfs_write=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            if schema and direction == "upgrade":
                connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            config.attributes.update(connection=connection, schema=schema)
            getattr(command, direction)(config, version)


MIGRATIONS = Migrations()
