"""A source as something to select from, and the expressions over it, as users wrote them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING

from sqlglot import exp

from virtualfs.capabilities import Capabilities, Files
from virtualfs.compiler import sql
from virtualfs.compiler.allow_list import SqlUse
from virtualfs.compiler.plan import PROJECT_FOLDER
from virtualfs.compiler.user_sql import as_derived_table, check_shape, read_expression
from virtualfs.definitions.feature_view import FeatureView
from virtualfs.definitions.source import Source
from virtualfs.errors import (
    DefinitionError,
    UnsupportedByWarehouseError,
    WarehouseError,
    did_you_mean,
)

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt

    Schema = Mapping[str, dt.DataType]
    Describe = Callable[[str], Schema]
Judge = Callable[[str, SqlUse], None]

__all__ = ["Judge", "ViewExpressions", "check_source", "relation", "renamed", "source_text"]


def relation(source: Source, capabilities: Capabilities) -> exp.Expr:
    """Return the source as something to select from: a table, or its query as it was written.

    Raises
    ------
    DefinitionError
        The query is not one SELECT.
    UnsupportedByWarehouseError
        The source is a path and the warehouse reads no files.
    """
    where = f"source {source.name!r}"
    if source.table is not None:
        table = sql.table_reference(source.table, capabilities.dialect)
        table.set("alias", exp.TableAlias(this=sql.identifier(sql.reserved("source"))))
        return table
    if source.path is not None:
        if capabilities.read_files is None:
            raise UnsupportedByWarehouseError(
                f"{where}: {capabilities.engine} reads no files; load {source.path!r} as a table, "
                "or give the source a DuckDB warehouse"
            )
        is_local = "://" not in source.path and not PurePath(source.path).is_absolute()
        path = f"{PROJECT_FOLDER}/{source.path}" if is_local else source.path
        files = Files(path, source.file_format or "parquet", source.version, source.as_of)
        select = capabilities.read_files(files)
    else:
        try:
            check_shape(source.query or "", "query", capabilities.lexis)
            select = f"\n{as_derived_table(source.query or '', capabilities.lexis)}"
        except DefinitionError as error:
            raise DefinitionError(f"{where}: {error}") from None
    return sql.subquery(sql.verbatim(select), "source")


def check_source(source: Source, judge: Judge) -> None:
    """Refuse a source that would do anything but read tables or views of its warehouse.

    Raises
    ------
    DefinitionError
        It would.
    """
    if source.query is not None:
        _judged(judge, source.query, "query", f"source {source.name!r}")


def _judged(judge: Judge, text: str, use: SqlUse, where: str) -> None:
    try:
        judge(text, use)
    except DefinitionError as error:
        shown = "" if use == "query" else f": {text!r}"
        raise DefinitionError(f"{where}: {error}{shown}") from None


def source_text(source: Source, capabilities: Capabilities) -> str:
    """Return a source as an item of FROM, without an alias."""
    place = relation(source, capabilities)
    place.set("alias", None)
    return sql.text(place, capabilities.dialect)


class ViewExpressions:
    """The expressions of a view, which see the columns of its source and nothing else.

    Parameters
    ----------
    view
        Whose expressions they are.
    schema
        The source's columns, by their names in the view.
    """

    def __init__(
        self, view: FeatureView, schema: Schema, capabilities: Capabilities, judge: Judge
    ) -> None:
        self._names = {feature.name for feature in view.features}
        self._schema = schema
        self._capabilities = capabilities
        self._judge = judge
        self._read: dict[str, None] = {}
        self._unknown: list[tuple[str, str]] = []

    def column(self, text: str, where: str) -> exp.Expr:
        """Return an expression as it was written, ready to be a column.

        Raises
        ------
        DefinitionError
            It is not one row-wise expression, or calls what it may not.
        """
        _judged(self._judge, text, "expression", where)
        try:
            found = read_expression(text, self._schema, self._capabilities)
        except DefinitionError as error:
            raise DefinitionError(f"{where}: {error}") from None
        self._read |= dict.fromkeys(found.columns)
        for name in found.unknown:
            # Where an engine lets a column see the others of its SELECT, it would not say so.
            if name in self._names or name in found.quoted:
                raise self._missing(name, where)
            self._unknown.append((name, where))
        return sql.verbatim(found.text)

    def described(self, rows_sql: str, describe: Describe) -> Schema:
        """Return what the engine says of a SELECT; its refusal names columns that do not exist."""
        try:
            return describe(rows_sql)
        except WarehouseError:
            for name, where in self._unknown:
                raise self._missing(name, where) from None
            raise

    def _missing(self, name: str, where: str) -> DefinitionError:
        return DefinitionError(
            f"{where}: the source has no column {name!r}. {did_you_mean(name, self._schema)}"
        )

    def read(self, others: Iterable[str]) -> list[str]:
        """Return the columns of the source that are read, here and by others, each once."""
        names = dict.fromkeys([*others, *self._read])
        return [name for name in names if name in self._schema]


def renamed(place: exp.Expr, named: Mapping[str, str], read: Collection[str]) -> exp.Expr:
    """Return a source with its columns under the view's names, where these are others."""
    if all(name == column for name, column in named.items()):
        return place
    items = [exp.Alias(this=sql.column(named[name]), alias=sql.identifier(name)) for name in read]
    return sql.subquery(exp.Select(expressions=items).from_(place, copy=False), "renamed")
