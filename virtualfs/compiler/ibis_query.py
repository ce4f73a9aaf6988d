"""SQL text as an Ibis table that runs as it was written.

``connection.sql(text)`` of Ibis 12 parses the text and prints it again, which changes what it
means: ``interval '1.5 hours'`` becomes one hour. It also names parts of a statement ``t0``, ``t1``
and so on, which hide tables of those names from the text. This module mends both and is the only
one that reaches into Ibis's compiler; ``tests/test_ibis_query.py`` fails on the day that Ibis no
longer needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from virtualfs.compiler import sql

if TYPE_CHECKING:
    import ibis.expr.types as ir

__all__ = ["query_table"]


def query_table(connection: Any, text: str, schema: Mapping[str, Any]) -> ir.Table:
    """Return the rows of a SELECT as a table of an Ibis connection.

    Parameters
    ----------
    text
        One SELECT in the connection's dialect; it is neither parsed nor changed.
    schema
        Its columns and their types.
    """
    import ibis

    table: ir.Table = _operation()(text, ibis.schema(schema), connection).to_expr()
    return table


@cache
def _operation() -> Any:
    import ibis.expr.operations as ops
    from ibis.backends.sql.compilers.base import SQLGlotCompiler

    class QueryText(ops.SQLQueryResult):  # type: ignore[misc]
        """A SELECT that is not parsed."""

    def visit_query_text(_compiler: Any, _op: Any, *, query: str, **_: Any) -> exp.Expr:
        text = exp.Subquery(this=exp.Var(this=f"\n{query}\n"))
        return exp.select("*").from_(text.as_(sql.reserved("query"), quoted=True))

    translate = SQLGlotCompiler.translate

    def translate_with_reserved_names(self: Any, op: Any, *, params: Any) -> Any:
        tree = translate(self, op, params=params)
        if op.find(QueryText):
            sql.rename_parts(tree, lambda name, _: sql.reserved(name))
        return tree

    SQLGlotCompiler.visit_QueryText = visit_query_text
    SQLGlotCompiler.translate = translate_with_reserved_names
    return QueryText
