"""Environments, lines of revisions, recorded changes, lineage and search."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"


def _of_object() -> list[sa.Column[object]]:
    return [
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("written", sa.Integer, primary_key=True, autoincrement=False),
    ]


def upgrade() -> None:
    """Move the history of objects into placements; derive what changed in each revision."""
    schema = context.config.attributes.get("schema")
    of = f'"{schema}".' if schema else ""
    op.create_table(
        "virtualfs_environments",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("moved_by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        schema=schema,
    )
    op.create_table(
        "virtualfs_placements",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("since", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("until", sa.Integer, nullable=True),
        sa.Column("written", sa.Integer, nullable=False),
        schema=schema,
    )
    op.create_table(
        "virtualfs_changes",
        sa.Column("project", sa.String(255), primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("old_version", sa.Integer, nullable=True),
        sa.Column("impact", sa.String(16), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        schema=schema,
    )
    op.create_table(
        "virtualfs_edges",
        *_of_object(),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("feature", sa.String(255), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("upstream_kind", sa.String(32), nullable=False),
        sa.Column("warehouse", sa.String(255), nullable=False),
        sa.Column("upstream", sa.String(1000), nullable=False),
        sa.Column("upstream_name", sa.String(255), nullable=False),
        schema=schema,
    )
    op.create_table(
        "virtualfs_documents",
        *_of_object(),
        sa.Column("feature", sa.String(255), primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        schema=schema,
    )
    for column in (
        sa.Column("parent", sa.Integer, nullable=True),
        sa.Column("line", sa.Integer, nullable=False, server_default="1"),
        sa.Column("environment", sa.String(255), nullable=False, server_default="default"),
        sa.Column("action", sa.String(64), nullable=False, server_default="apply"),
    ):
        op.add_column("virtualfs_revisions", column, schema=schema)
    op.execute(f"UPDATE {of}virtualfs_revisions SET parent = number - 1 WHERE number > 1")
    op.execute(
        f"INSERT INTO {of}virtualfs_environments "
        "SELECT project, 'default', 1, number, created_at, created_by, 'upgrade' "
        f"FROM {of}virtualfs_revisions AS r WHERE number = (SELECT max(number) FROM "
        f"{of}virtualfs_revisions AS newest WHERE newest.project = r.project)"
    )
    op.execute(
        f"INSERT INTO {of}virtualfs_placements (project, line, kind, name, since, until, written) "
        f"SELECT project, 1, kind, name, since, until, since FROM {of}virtualfs_objects"
    )
    # What changed: a row that takes over from another is a change, else it adds; a row that none
    # takes over from was removed.
    same = "other.project = o.project AND other.kind = o.kind AND other.name = o.name"
    op.execute(
        f"INSERT INTO {of}virtualfs_changes "
        "SELECT o.project, o.since, o.kind, o.name, "
        "CASE WHEN other.name IS NULL THEN 'add' ELSE 'change' END, o.version, other.version, "
        "'unknown', '[]' "
        f"FROM {of}virtualfs_objects AS o LEFT JOIN {of}virtualfs_objects AS other "
        f"ON {same} AND other.until = o.since"
    )
    op.execute(
        f"INSERT INTO {of}virtualfs_changes "
        "SELECT o.project, o.until, o.kind, o.name, 'remove', o.version, o.version, 'breaking', "
        f"'[]' FROM {of}virtualfs_objects AS o WHERE o.until IS NOT NULL AND NOT EXISTS ("
        f"SELECT 1 FROM {of}virtualfs_objects AS other WHERE {same} AND other.since = o.until)"
    )
    op.drop_index("ix_virtualfs_objects_current", table_name="virtualfs_objects", schema=schema)
    op.execute(f"ALTER TABLE {of}virtualfs_objects DROP COLUMN until")
    op.execute(f"ALTER TABLE {of}virtualfs_objects RENAME COLUMN since TO written")
    for name, table, columns in (
        ("ix_virtualfs_placements_current", "virtualfs_placements", ["project", "line", "until"]),
        ("ix_virtualfs_changes_name", "virtualfs_changes", ["project", "name"]),
        (
            "ix_virtualfs_edges_upstream",
            "virtualfs_edges",
            ["project", "upstream_kind", "upstream_name"],
        ),
    ):
        op.create_index(name, table, columns, schema=schema)


def downgrade() -> None:
    """Go back to one line of revisions, if there is but one."""
    schema = context.config.attributes.get("schema")
    of = f'"{schema}".' if schema else ""
    if not context.is_offline_mode():
        parted = op.get_bind().exec_driver_sql(
            f"SELECT count(*) FROM {of}virtualfs_environments AS e WHERE name <> 'default'"
        )
        if parted.scalar():
            raise RuntimeError(
                "this registry has environments, which schema 0001 cannot hold; nothing was changed"
            )
    for table in ("placements", "objects"):  # marks of old versions, which 0001 knows nothing of
        op.execute(f"DELETE FROM {of}virtualfs_{table} WHERE kind = 'deprecation'")
    op.drop_index("ix_virtualfs_placements_current", "virtualfs_placements", schema=schema)
    op.execute(f"ALTER TABLE {of}virtualfs_objects RENAME COLUMN written TO since")
    op.execute(f"ALTER TABLE {of}virtualfs_objects ADD COLUMN until INTEGER")
    # Only rows that went back in a rollback stand twice; 0001 knows them by a row of their own.
    op.execute(
        f"INSERT INTO {of}virtualfs_objects (project, kind, name, since, version, fingerprint, "
        "origin, definition, resolved) SELECT o.project, o.kind, o.name, p.since, o.version, "
        f"o.fingerprint, o.origin, o.definition, o.resolved FROM {of}virtualfs_placements AS p "
        f"JOIN {of}virtualfs_objects AS o ON o.project = p.project AND o.kind = p.kind AND "
        "o.name = p.name AND o.since = p.written WHERE p.since <> p.written"
    )
    op.execute(
        f"UPDATE {of}virtualfs_objects SET until = (SELECT p.until FROM "
        f"{of}virtualfs_placements AS p WHERE p.project = virtualfs_objects.project AND "
        "p.kind = virtualfs_objects.kind AND p.name = virtualfs_objects.name AND "
        "p.since = virtualfs_objects.since)"
    )
    op.create_index(
        "ix_virtualfs_objects_current", "virtualfs_objects", ["project", "until"], schema=schema
    )
    for table in ("documents", "edges", "changes", "placements", "environments"):
        op.drop_table(f"virtualfs_{table}", schema=schema)
    for column in ("action", "environment", "line", "parent"):
        op.execute(f"ALTER TABLE {of}virtualfs_revisions DROP COLUMN {column}")
