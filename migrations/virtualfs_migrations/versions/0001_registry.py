"""The registry: revisions, and objects as a history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "virtualfs_revisions",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
    )
    op.create_table(
        "virtualfs_objects",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("since", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("until", sa.Integer, nullable=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("resolved", sa.JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["project", "since"],
            ["virtualfs_revisions.project", "virtualfs_revisions.number"],
            name="fk_virtualfs_objects_since",
        ),
    )
    op.create_index("ix_virtualfs_objects_current", "virtualfs_objects", ["project", "until"])
    op.create_index(
        "ix_virtualfs_objects_version", "virtualfs_objects", ["project", "kind", "name", "version"]
    )


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("virtualfs_objects")
    op.drop_table("virtualfs_revisions")
