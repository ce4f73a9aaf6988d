"""What SQL of a definition may do in DuckDB, judged by DuckDB's own parser and catalog.

DuckDB writes the tree of a SELECT as JSON (``json_serialize_sql``), so the judge reads what runs.
Nodes, functions and relations that are not listed are refused.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Mapping
from typing import Any

from virtualfs.capabilities import Lexis
from virtualfs.compiler.allow_list import (
    FunctionCatalog,
    SqlFunction,
    SqlUse,
    not_rowwise,
    refuse_call,
)
from virtualfs.compiler.user_sql import check_shape
from virtualfs.errors import DefinitionError, did_you_mean

__all__ = ["LEXIS", "DuckDBJudge", "quoted_text"]

LEXIS = Lexis(
    string_prefixes={"e": True, "x": False, "b": False},
    nested_comments=True,
    dollar_quotes=True,
    parameters="?",
)
_FUNCTIONS = """
SELECT function_name, function_type, stability, len(parameters), varargs IS NOT NULL, internal,
       macro_definition
FROM duckdb_functions()
WHERE database_name IN ('system', 'temp', current_database())
"""
_RELATIONS = """
SELECT database_name, schema_name, table_name FROM duckdb_tables()
WHERE NOT internal AND database_name IN (current_database(), 'temp')
UNION ALL
SELECT database_name, schema_name, view_name FROM duckdb_views()
WHERE NOT internal AND database_name IN (current_database(), 'temp')
"""
_SETS = frozenset(("generate_series", "json_each", "json_tree", "range", "unnest"))
"""Table functions that make rows of their arguments alone."""
_OUTSIDE = re.compile(
    r"current_(?!date|time|localtime)\w+|user|session_user|getenv|getvariable|in_search_path|"
    r"version|txid_current|pg_(?!typeof)\w+|has_\w+_privilege|inet_\w+|\w*obj_description|"
    r"col_description|get_block_size|json_(de)?serialize_\w+|json_execute_\w+|stats|write_log|"
    r"sleep_ms|error|format_type|map_to_pg_oid|vector_type|create_sort_key|__internal\w*|"
    r"parse_duckdb_log_message"
)
_CLOCK = re.compile(
    r"now|today|ago|get_current_time\w*|transaction_timestamp|current_(date|time|timestamp|"
    r"localtime|localtimestamp)"
)
_BARE_WORDS = frozenset(
    ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp",
     "current_user", "current_role", "current_schema", "current_catalog", "current_database",
     "session_user")
)  # fmt: skip
"""Words that are functions without parentheses, unless a column has their name."""
_JSON_MACRO = re.compile("json_group_")
_KEPT_SECONDS = 5.0
"""How long the lists of functions and relations are cached."""
_EXPRESSIONS = frozenset(
    ("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT",
     "FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR", "TYPE")
)  # fmt: skip
_OF_MANY_ROWS = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star, which does not name one column,",
    "POSITIONAL_REFERENCE": "a position",
    "DEFAULT": "DEFAULT",
}
_QUERIES = frozenset(("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"))
_PLACES = frozenset(
    ("BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT")
)


def quoted_text(text: str) -> str:
    """Return a text as a string of DuckDB's SQL."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


class DuckDBJudge:
    """Judges SQL by what one open database says.

    Parameters
    ----------
    connection
        DuckDB's own; its caller holds the lock.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._until = 0.0
        self._functions: FunctionCatalog | None = None
        self._relations: Collection[tuple[str, ...]] | None = None
        self._macros: dict[str, list[tuple[str, bool]]] = {}

    def judge(self, text: str, use: SqlUse) -> None:
        """Refuse what does anything but read this database.

        Raises
        ------
        DefinitionError
            See :meth:`virtualfs.provider.Warehouse.judge`.
        """
        check_shape(text, use, LEXIS)
        node = self._parsed(text if use == "query" else f"SELECT {text}", use)
        if time.monotonic() > self._until:
            self._until = time.monotonic() + _KEPT_SECONDS
            self._functions, self._relations = None, None
        if use == "expression":
            self._expression(node)
        else:
            self._query(node, frozenset())

    def _parsed(self, select: str, use: SqlUse) -> Mapping[str, Any]:
        # Written out: to bind a parameter, DuckDB imports pandas.
        (text,) = self._connection.execute(
            f"SELECT json_serialize_sql({quoted_text(select)}::VARCHAR)"
        ).fetchone()
        found = json.loads(text)
        if found["error"]:
            message = found["error_message"]
            if "Only SELECT" in message:
                raise DefinitionError("expected exactly one SELECT, which may only read")
            raise DefinitionError(f"not SQL: {message}")
        if len(found["statements"]) != 1:
            raise DefinitionError("expected exactly one SELECT")
        node: Mapping[str, Any] = found["statements"][0]["node"]
        if use == "expression":
            clauses = (
                "modifiers",
                "where_clause",
                "group_expressions",
                "having",
                "qualify",
                "sample",
            )
            is_bare = (
                node["type"] == "SELECT_NODE"
                and not any(node[clause] for clause in clauses)
                and not node["cte_map"]["map"]
                and node["from_table"]["type"] == "EMPTY"
                and len(node["select_list"]) == 1
            )
            if not is_bare or node["select_list"][0].get("alias"):
                raise DefinitionError("expected one expression such as temp <= 32")
        return node

    def _expression(self, node: Mapping[str, Any]) -> None:
        (value,) = node["select_list"]
        self._walk(value, "expression", frozenset())

    def _query(self, node: Mapping[str, Any], known: frozenset[str]) -> None:
        """Walk a query; `known` are the common table expressions that it sees."""
        if node["type"] not in _QUERIES:
            raise DefinitionError(f"{node['type']} may not stand in stored SQL")
        for entry in node["cte_map"]["map"]:
            self._query(entry["value"]["query"]["node"], known)
            known |= {entry["key"].lower()}
        inside = known
        if node["type"] == "RECURSIVE_CTE_NODE":  # whose second part alone sees itself
            inside = known | {node["cte_name"].lower()}
        for name, value in node.items():
            if name != "cte_map":
                self._walk(value, "query", inside if name == "right" else known)

    def _walk(self, value: Any, use: SqlUse, known: frozenset[str]) -> None:
        if isinstance(value, list):
            for item in value:
                self._walk(item, use, known)
            return
        if not isinstance(value, dict):
            return
        if "modifiers" in value and "cte_map" in value:
            self._query(value, known)
            return
        if "class" in value:
            if not self._value(value, use):
                return
        elif "sample" in value and "alias" in value:
            self._place(value, use, known)
            if value["type"] == "TABLE_FUNCTION":
                self._walk(value["function"]["children"], use, known)
                return
        for name, inner in value.items():
            if name not in ("cast_type", "sample"):
                self._walk(inner, use, known)

    def _value(self, value: Mapping[str, Any], use: SqlUse) -> bool:
        """Judge one node of an expression; return whether there is something inside of it."""
        kind = value["class"]
        if kind == "PARAMETER":
            raise DefinitionError(not_rowwise("a parameter"))
        if kind in _OF_MANY_ROWS and use == "expression":
            raise DefinitionError(not_rowwise(_OF_MANY_ROWS[kind]))
        if kind not in _EXPRESSIONS and kind not in _OF_MANY_ROWS:
            raise DefinitionError(f"{kind} may not stand in stored SQL")
        if kind == "CONSTANT":
            return False
        if kind in ("FUNCTION", "WINDOW") and not value.get("is_operator"):
            self._call(value["function_name"], len(value["children"]), use)
        if kind == "COLUMN_REF" and len(value["column_names"]) == 1 and use == "expression":
            self._bare_word(value["column_names"][0].lower())
        return True

    def _bare_word(self, name: str) -> None:
        if name in _BARE_WORDS:
            raise DefinitionError(
                f"{name} gives another answer on each run, or to each user, so it cannot be part "
                "of a definition"
            )

    def _call(self, name: str, arguments: int, use: SqlUse, *, in_from: bool = False) -> None:
        name = name.lower()
        refuse_call(self._catalog, name, arguments, use, in_from=in_from)
        for macro, is_own in self._macros.get(name, ()):
            if is_own and use == "query":
                continue  # DuckDB's own call nothing but what is listed
            try:
                (value,) = self._parsed(f"SELECT {macro}", "expression")["select_list"]
                self._walk(value, use, frozenset())
            except DefinitionError as error:
                raise DefinitionError(f"the macro {name}: {error}") from None

    def _place(
        self,
        place: Mapping[str, Any],
        use: SqlUse,
        known: frozenset[str],
    ) -> None:
        kind = place["type"]
        if kind not in _PLACES:
            what = "SUMMARIZE, DESCRIBE and SHOW" if kind == "SHOW_REF" else kind
            raise DefinitionError(f"{what} may not stand in stored SQL")
        if kind == "TABLE_FUNCTION":
            function = place["function"]
            if function["class"] != "FUNCTION":
                raise DefinitionError(f"{function['class']} may not stand in FROM")
            self._call(function["function_name"], len(function["children"]), use, in_from=True)
        if kind != "BASE_TABLE":
            return
        parts = (place["catalog_name"], place["schema_name"], place["table_name"])
        named = tuple(part.lower() for part in parts if part)
        if named[0] in known and len(named) == 1:
            return
        relations = self._named_relations(named)
        if named not in relations:
            shown = ".".join(part for part in parts if part)
            if re.search(r"[/\\*:]|\.\w+$", place["table_name"]):
                raise DefinitionError(f"{shown!r} names a file; use path= for files")
            names = [".".join(names) for names in relations if len(names) == len(named)]
            raise DefinitionError(
                f"there is no table or view {shown!r} in this warehouse. "
                f"{did_you_mean(shown, names)}"
            )

    def _named_relations(self, wanted: tuple[str, ...]) -> Collection[tuple[str, ...]]:
        """Return the names that tables and views of this database can be read by."""
        if self._relations is not None and wanted in self._relations:
            return self._relations
        (searched,) = self._connection.execute("SELECT current_schemas(true)").fetchone()
        found: set[tuple[str, ...]] = set()
        for row in self._connection.execute(_RELATIONS).fetchall():
            place, schema, name = (part.lower() for part in row)
            found |= {(schema, name), (place, schema, name)}
            if schema in {each.lower() for each in searched} or place == "temp":
                found.add((name,))
            if schema == "main":
                found.add((place, name))
        self._relations = found
        return found

    @property
    def _catalog(self) -> FunctionCatalog:
        if self._functions is None:
            rows = self._connection.execute(_FUNCTIONS).fetchall()
            self._macros = {}
            for name, kind, _, _, _, internal, body in rows:
                if kind == "macro" and not (internal and _JSON_MACRO.match(name)):
                    self._macros.setdefault(name.lower(), []).append((body, internal))
            self._functions = FunctionCatalog.of(
                ((row[0], _function(*row)) for row in rows if row[1] != "pragma"),
                is_complete=False,  # the parser's own are among them too
            )
        return self._functions


def _function(
    name: str, kind: str, stability: str | None, parameters: int, takes_more: bool, internal: bool,
    body: str | None,
) -> SqlFunction:  # fmt: skip
    name = name.lower()
    is_table = kind in ("table", "table_macro")
    is_clock = bool(_CLOCK.fullmatch(name)) or (name == "age" and parameters == 1)
    is_aggregate = kind == "aggregate" or (body is not None and "json_group_" in name)
    steady: Any = "pure"
    if stability == "VOLATILE":
        steady = "volatile"
    elif stability == "CONSISTENT_WITHIN_QUERY" or is_clock:
        steady = "clock"
    outside = bool(_OUTSIDE.fullmatch(name)) or (is_table and name not in _SETS)
    return SqlFunction(
        kind="set" if is_table or name == "unnest" else "aggregate" if is_aggregate else "scalar",
        stability=steady,
        least=0 if takes_more or kind == "macro" else parameters,
        most=10**6 if takes_more or kind == "macro" else parameters,
        reaches_outside=outside or (is_table and not internal),
    )
