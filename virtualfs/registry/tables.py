"""The registry's tables, as SQLAlchemy Core sees them; migrations make and change them.

``objects`` is a history: a row says that an object had this content from revision ``since`` up to
but not including revision ``until`` (NULL: still). So the state at any revision is one query.
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["metadata", "objects", "revisions"]

metadata = sa.MetaData()

revisions = sa.Table(
    "virtualfs_revisions",
    metadata,
    sa.Column("project", sa.String(255), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("created_by", sa.String(255), nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
)

objects = sa.Table(
    "virtualfs_objects",
    metadata,
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
    sa.Index("ix_virtualfs_objects_current", "project", "until"),
    sa.Index("ix_virtualfs_objects_version", "project", "kind", "name", "version"),
)
