"""Alembic migrations of the registry; see migrations/README.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.config import Config

__all__ = ["MIGRATIONS", "Migrations"]


class Migrations:
    """The migrations as the core sees them. Alembic itself is imported only to upgrade."""

    head = "0001"
    """The newest schema version; a test compares it with the scripts."""

    def config(self) -> Config:
        """Return Alembic's configuration of this package."""
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        return config

    def upgrade(self, engine: sa.Engine) -> None:
        """Create the tables or bring them to :attr:`head`, in one transaction."""
        from alembic import command

        config = self.config()
        with engine.execution_options(virtualfs_write=True).begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


MIGRATIONS = Migrations()
