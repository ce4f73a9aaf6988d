"""What SQL of a definition may do in PostgreSQL, judged by its tokens and by the server's catalog.

PostgreSQL does not show how it parses a statement, so nothing is concluded from a tree: every name
that could call a function is looked for among the tokens, in calls, in attribute notation
(``x.f`` is ``f(x)``) and behind operators, and looked up in ``pg_proc``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from virtualfs.capabilities import Lexis
from virtualfs.compiler.allow_list import FunctionCatalog, SqlFunction, SqlUse, not_rowwise
from virtualfs.compiler.judge import check_tokens
from virtualfs.compiler.tokens import Token, calls_in, is_word
from virtualfs.compiler.user_sql import with_neighbours
from virtualfs.errors import DefinitionError

__all__ = ["LEXIS", "PostgresJudge", "PostgresNames"]

LEXIS = Lexis(
    string_prefixes={"e": True, "b": False, "x": False, "n": False},
    nested_comments=True,
    dollar_quotes=True,
)
_FUNCTIONS = """
SELECT p.proname, p.prokind, p.provolatile, p.proretset, p.pronargs - p.pronargdefaults,
       CASE WHEN p.provariadic <> 0 THEN 1000000 ELSE p.pronargs END,
       r.typname IN ('trigger', 'event_trigger', 'internal') OR r.typname LIKE '%\\_handler',
       p.pronargs >= 1 AND (a.typtype = 'c' OR a.typname IN
           ('record', 'any', 'anyelement', 'anynonarray', 'anycompatible'))
FROM pg_proc p LEFT JOIN pg_type a ON a.oid = p.proargtypes[0]
JOIN pg_type r ON r.oid = p.prorettype
WHERE r.typname <> 'tsm_handler'
  AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) AS t(oid)
                  WHERE t.oid IN ('internal'::regtype, 'cstring'::regtype))
"""
_OPERATORS = """
SELECT o.oprname, p.proname, p.provolatile
FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
WHERE o.oid >= 16384 OR p.provolatile = 'v'
"""
_RELATIONS = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'pg_catalog' AND c.relkind IN ('r', 'v', 'm', 'f', 'p')
"""
_OUTSIDE = re.compile(
    r"_?pg_(?!typeof$|column_size$|size_pretty$|size_bytes$|lsn|input_is_valid$|basetype$)\w*|"
    r"current_(database|schema|schemas|setting|user|query)|session_user|system_user|getpgusername|"
    r"getdatabaseencoding|version|txid_\w+|\w*_to_xml\w*|\w+_xmlschema|lo_\w+|loread|lowrite|"
    r"has_\w+_privilege|inet_(client|server)_\w+|\w*obj_description|col_description|to_reg\w+|"
    r"reg(class|role)|acl\w*|makeaclitem|row_security_active|binary_upgrade_\w+|set_config|"
    r"dblink\w*|crosstab\w*|connectby\w*|normal_rand|xpath_table|ts_(stat|debug|parse|token_type)|"
    r"get_current_ts_config|lastval|currval|amvalidate|\w+_validator|currtid\w*|"
    r"file_fdw_\w+|postgres_fdw_\w+|plv8\w*|query|get_raw_page|page_header|pgstat\w+|http\w*"
)
_CLOCKS = {"now": 0, "statement_timestamp": 0, "transaction_timestamp": 0}
_SESSION_WORDS = (
    "current_user", "current_role", "current_catalog", "current_schema", "session_user",
    "system_user", "user",
)  # fmt: skip
_CLOCK_TEXTS = frozenset(("now", "today", "tomorrow", "yesterday"))
_KEPT_SECONDS = 60.0


@dataclass(frozen=True)
class PostgresNames:
    """What a server's catalog says of the names that SQL may hold.

    Parameters
    ----------
    functions
        Functions, and operators that call what may not be called.
    of_rows
        Functions that ``relation.name`` calls where the relation has no such column.
    relations
        Tables and views of the server itself.
    """

    functions: FunctionCatalog
    of_rows: frozenset[str]
    relations: frozenset[str]

    @classmethod
    def read(cls, cursor: Any) -> PostgresNames:
        """Read the catalog of the server that a cursor is connected to."""
        cursor.execute(_FUNCTIONS)
        rows = cursor.fetchall()
        cursor.execute(_OPERATORS)
        operators = {
            operator
            for operator, function, volatility in cursor.fetchall()
            if _text(volatility) == "v" or _OUTSIDE.fullmatch(function)
        }
        cursor.execute(_RELATIONS)
        relations = {name for (name,) in cursor.fetchall()}
        return cls(
            FunctionCatalog.of(
                ((row[0], _function(*row[:-1])) for row in rows), operators=operators
            ),
            frozenset(row[0].lower() for row in rows if row[-1]),
            frozenset(relations | {"information_schema", "pg_toast"}),
        )


class PostgresJudge:
    """Judges SQL by what one server says of its functions, which is read again now and then."""

    def __init__(self) -> None:
        self._names: PostgresNames | None = None
        self._until = 0.0

    def judge(self, text: str, use: SqlUse, cursor: Any) -> None:
        """Refuse what does anything but read.

        Raises
        ------
        DefinitionError
            See :meth:`virtualfs.provider.Warehouse.judge`.
        """
        names = self._names
        if names is None or time.monotonic() > self._until:
            names = self._names = PostgresNames.read(cursor)
            self._until = time.monotonic() + _KEPT_SECONDS
        judge(text, use, names)


def judge(text: str, use: SqlUse, names: PostgresNames) -> None:
    """Refuse what does anything but read, by what a server's catalog says.

    Raises
    ------
    DefinitionError
        It may not be.
    """
    tokens = check_tokens(text, use, LEXIS, names.functions)
    for call in calls_in(tokens):
        before = tokens[call.position - 1] if call.position else None
        if before is not None and is_word(before, "as", "with", "recursive"):
            continue  # the columns of an alias
        if _OUTSIDE.fullmatch(call.name.lower()):  # of an extension that may come later
            raise DefinitionError(f"{call.name}() reads outside the warehouse's tables")
    for before, token, after in with_neighbours(tokens):
        follows_dot = before is not None and before.text == "."
        if token.is_name:
            is_call = after is not None and after.text == "("
            name = token.value.lower()
            if not is_call and not follows_dot:
                _refuse_word(token)
            if not is_call and name in names.relations:
                raise DefinitionError(f"{name!r} is PostgreSQL's own, not a table of yours")
        if use == "expression" and token.kind == "string":
            _refuse_clock_text(token)
    _refuse_attributes(tokens, use, names)


def _refuse_word(token: Token) -> None:
    if is_word(token, *_SESSION_WORDS):
        raise DefinitionError(
            f"{token.text} tells who is connected, so it cannot be part of a definition; a column "
            "of that name is written in quotes"
        )


def _refuse_clock_text(token: Token) -> None:
    if token.value.strip().lower() in _CLOCK_TEXTS:
        raise DefinitionError(
            f"{token.text} becomes the current time where PostgreSQL expects one, which gives "
            "another answer on each run; compare with it in a query= source"
        )


def _refuse_attributes(tokens: Sequence[Token], use: SqlUse, names: PostgresNames) -> None:
    """Refuse functions that are called as attributes: ``(x).f``, and ``relation.f``."""
    for position, token in enumerate(tokens):
        is_attribute = token.is_name and position >= 2 and tokens[position - 1].text == "."
        if not is_attribute:
            continue
        after = tokens[position + 1].text if position + 1 < len(tokens) else ""
        of_value = tokens[position - 2].text in (")", "]")
        name = token.value.lower()
        if after == "(" or not (of_value or name in names.of_rows):
            continue
        for function in names.functions.functions.get(name, ()):
            if use == "expression" and function.kind != "scalar" and function.takes(1):
                raise DefinitionError(not_rowwise(f"{name}(), called as an attribute,"))
            may_be = function.stability == "pure" or (
                use == "query" and function.stability == "clock"
            )
            if function.takes(1) and (function.reaches_outside or not may_be):
                raise DefinitionError(
                    f"{tokens[position - 2].text}.{token.text} would call {name}(), which reads "
                    "outside the warehouse's tables or gives another answer on each run"
                )


def _function(
    name: str, kind: Any, volatility: Any, gives_rows: bool, least: int, most: int,
    is_of_server: bool,
) -> SqlFunction:  # fmt: skip
    name, kind, volatility = name.lower(), _text(kind), _text(volatility)
    kinds: dict[str, Literal["aggregate", "window"]] = {"a": "aggregate", "w": "window"}
    is_clock = name in _CLOCKS or (name == "age" and most == 1)
    return SqlFunction(
        kind="set" if gives_rows else kinds.get(kind, "scalar"),
        stability="volatile"
        if volatility == "v" or kind == "p"
        else "clock"
        if is_clock
        else "pure",
        least=0 if kind == "a" else least,
        most=most,
        reaches_outside=is_of_server or bool(_OUTSIDE.fullmatch(name)),
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
