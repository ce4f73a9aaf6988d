"""The registry's tables, as SQLAlchemy Core sees them; migrations make and change them.

Revisions form lines: a revision follows its parent, and one that follows what is not the tip of a
line begins a line of its own, as when two environments part. ``objects`` are immutable; a
``placement`` says that an object stood at its name from revision ``since`` of a line up to but not
including revision ``until`` (NULL: still). So the state at any revision is one query, and a line
that parts from another copies placements and no definitions. Environments point at revisions; all
their moves are kept. Saved training sets stand by themselves: they are facts of the project, and
belong to no revision.
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = [
    "changes",
    "documents",
    "edges",
    "environments",
    "identity",
    "metadata",
    "objects",
    "placements",
    "revisions",
    "schema_version",
    "training_set_features",
    "training_sets",
]

metadata = sa.MetaData()


def _of_object() -> list[sa.Column[object]]:
    """Return the columns that name one object for good."""
    return [
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("written", sa.Integer, primary_key=True, autoincrement=False),
    ]


revisions = sa.Table(
    "virtualfs_revisions",
    metadata,
    sa.Column("project", sa.String(255), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("created_by", sa.String(255), nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("parent", sa.Integer, nullable=True),
    sa.Column("line", sa.Integer, nullable=False, server_default="1"),
    sa.Column("environment", sa.String(255), nullable=False, server_default="default"),
    sa.Column("action", sa.String(64), nullable=False, server_default="apply"),
)

environments = sa.Table(
    "virtualfs_environments",
    metadata,
    sa.Column("project", sa.String(255), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("moved_by", sa.String(255), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

objects = sa.Table(
    "virtualfs_objects",
    metadata,
    *_of_object(),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("definition", sa.JSON, nullable=False),
    sa.Column("resolved", sa.JSON, nullable=True),
    sa.ForeignKeyConstraint(
        ["project", "written"],
        ["virtualfs_revisions.project", "virtualfs_revisions.number"],
        name="fk_virtualfs_objects_since",
    ),
    sa.Index("ix_virtualfs_objects_version", "project", "kind", "name", "version"),
)


placements = sa.Table(
    "virtualfs_placements",
    metadata,
    sa.Column("project", sa.String(255), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("since", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("until", sa.Integer, nullable=True),
    sa.Column("written", sa.Integer, nullable=False),
    sa.Index("ix_virtualfs_placements_current", "project", "line", "until"),
)

changes = sa.Table(
    "virtualfs_changes",
    metadata,
    sa.Column("project", sa.String(255), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("old_version", sa.Integer, nullable=True),
    sa.Column("impact", sa.String(16), nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Index("ix_virtualfs_changes_name", "project", "name"),
)

edges = sa.Table(
    "virtualfs_edges",
    metadata,
    *_of_object(),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("feature", sa.String(255), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("upstream_kind", sa.String(32), nullable=False),
    sa.Column("warehouse", sa.String(255), nullable=False),
    sa.Column("upstream", sa.String(1000), nullable=False),
    sa.Column("upstream_name", sa.String(255), nullable=False),
    sa.Index("ix_virtualfs_edges_upstream", "project", "upstream_kind", "upstream_name"),
)

documents = sa.Table(
    "virtualfs_documents",
    metadata,
    *_of_object(),
    sa.Column("feature", sa.String(255), primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("words", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)


def _of_set() -> list[sa.Column[object]]:
    """Return the columns that name one saved training set for good."""
    return [
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    ]


training_sets = sa.Table(
    "virtualfs_training_sets",
    metadata,
    *_of_set(),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("created_by", sa.String(255), nullable=False),
    sa.Column("content_hash", sa.String(80), nullable=False),
    sa.Column("record", sa.JSON, nullable=False),
)

training_set_features = sa.Table(
    "virtualfs_training_set_features",
    metadata,
    *_of_set(),
    sa.Column("view", sa.String(300), primary_key=True),
    sa.Column("feature", sa.String(255), primary_key=True),
    sa.Index("ix_virtualfs_training_set_features_view", "project", "view"),
)

identity = sa.Table(
    "virtualfs_identity", metadata, sa.Column("identity", sa.String(36), primary_key=True)
)
"""One row: what tells this registry from others, for good."""

schema_version = sa.Table(
    "virtualfs_schema", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True)
)
"""Alembic's own table."""
