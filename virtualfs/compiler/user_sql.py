"""SQL that users write: checked for its shape, and made part of statements as it was written.

Text of a user is never printed from a syntax tree, which would change what it means: a tree holds
what its parser knows, and no parser but the engine's knows all. A query becomes a derived table
in parentheses, an expression a column in parentheses. Trees are made for lineage and for messages
alone, and where none can be made, the engine decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from virtualfs.capabilities import Capabilities, Lexis
from virtualfs.compiler import sql
from virtualfs.compiler.allow_list import SqlUse, not_rowwise
from virtualfs.compiler.tokens import Token, is_word, significant, tokens_of
from virtualfs.errors import DefinitionError

__all__ = [
    "UserExpression",
    "as_derived_table",
    "check_shape",
    "columns_of_expression",
    "read_expression",
    "tree_of_query",
    "with_neighbours",
]

_REPLACED = re.compile(r"""["`\[]__virtualfs_(spine|rows|times)|'__virtualfs_(first|last)""")
"""Names and texts that statements are bound by, anywhere in their text."""


@dataclass(frozen=True)
class UserExpression:
    """A row-wise expression that is ready to be a column.

    Parameters
    ----------
    text
        In parentheses, as it was written but for the case of column names.
    columns
        The columns that it reads, as the view names them.
    unknown
        Names in it that seem to be columns, but are none of the source.
    quoted
        Those of them that are quoted, so that they can be nothing else.
    """

    text: str
    columns: tuple[str, ...]
    unknown: tuple[str, ...]
    quoted: frozenset[str]


def check_shape(text: str, use: SqlUse, lexis: Lexis) -> tuple[Token, ...]:
    """Check that a text is one query, or one expression, whatever the engine; return its tokens.

    Comments and the semicolon at its end are left out.

    Raises
    ------
    DefinitionError
        It is not SQL, more than one statement, or holds a parameter or a reserved name.
    """
    if (replaced := _REPLACED.search(text)) is not None:
        raise DefinitionError(f"{replaced.group()} is reserved; choose another name")
    for refused in lexis.refused:
        if refused in text:
            raise DefinitionError(
                f"{refused!r} may not stand in it: the engine replaces it before it reads the text"
            )
    for token in tokens_of(text, lexis):
        is_line = token.kind == "comment" and not token.text.startswith("/*")
        if is_line and "\r" in token.text.rstrip("\r"):
            raise DefinitionError("not SQL: a carriage return in a comment may end it")
    tokens = list(significant(text, lexis))
    for before, token, _ in with_neighbours(tokens):
        if before is not None and before.kind == token.kind == "string" and before.has_prefix:
            raise DefinitionError(f"not SQL: {before.text} is followed by another string; use ||")
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    expected = "exactly one SELECT" if use == "query" else "one expression such as temp <= 32"
    if not tokens or any(token.text == ";" and token.kind == "punctuation" for token in tokens):
        raise DefinitionError(f"expected {expected}, not {_brief(text)}")
    if any(token.kind == "parameter" for token in tokens):
        raise DefinitionError(
            "a parameter cannot be bound in a definition; write the value"
            if use == "query"
            else not_rowwise("a parameter")
        )
    if use == "query":
        first = next((token for token in tokens if token.text != "("), tokens[0])
        if not is_word(first, "select", "with", "values", "from", "table"):
            raise DefinitionError(f"expected {expected}, not {_brief(text)}")
    elif any(token.is_name and token.value.startswith("__virtualfs") for token in tokens):
        raise DefinitionError("names that begin with __virtualfs are reserved")
    elif _has_comma(tokens):
        raise DefinitionError(f"expected {expected}, not {_brief(text)}")
    return tuple(tokens)


def with_neighbours(
    tokens: Sequence[Token],
) -> Iterable[tuple[Token | None, Token, Token | None]]:
    """Yield each token between the one before and the one after it."""
    for number, token in enumerate(tokens):
        yield (
            tokens[number - 1] if number else None,
            token,
            tokens[number + 1] if number + 1 < len(tokens) else None,
        )


def _has_comma(tokens: Sequence[Token]) -> bool:
    depth = 0
    for token in tokens:
        if token.kind == "punctuation":
            depth += (token.text in "([{") - (token.text in ")]}")
            if token.text == "," and depth == 0:
                return True
    return False


def as_derived_table(text: str, lexis: Lexis) -> str:
    r"""Return a query as it was written, without the semicolon that it ends in.

    It is followed by a line break, so that a comment at its end ends there.

    >>> as_derived_table("SELECT 1; -- one", Lexis())
    'SELECT 1 -- one\n'
    """
    return _without_semicolons(text, lexis) + "\n"


def _without_semicolons(text: str, lexis: Lexis) -> str:
    ends = [
        token for token in tokens_of(text, lexis) if token.text == ";" and token.kind != "comment"
    ]
    for token in reversed(ends):
        text = text[: token.start] + text[token.end :]
    return text


def read_expression(
    text: str, columns: Mapping[str, object], capabilities: Capabilities
) -> UserExpression:
    """Return an expression ready to be a column of a table that has these columns.

    Raises
    ------
    DefinitionError
        It is not one expression.
    """
    lexis = capabilities.lexis
    check_shape(text, "expression", lexis)
    folded = {name.lower(): name for name in columns}
    read: dict[str, None] = {}
    unknown: dict[str, None] = {}
    quoted_names = set()
    replaced = text
    for token, is_column in reversed(_names_in(text, capabilities)):
        as_read = token.value
        if token.kind == "word" and not capabilities.folds_case:
            as_read = as_read.lower() if lexis.folds_to == "lower" else as_read.upper()
        exact = (each for each in (as_read, token.value) if each in columns)
        name = next(exact, folded.get(token.value.lower()))
        if name is None:
            if is_column:
                unknown[token.value] = None
                if token.kind == "quoted":
                    quoted_names.add(token.value)
            continue
        read[name] = None  # perhaps too much: a parser that drops arguments must hide no column
        if is_column and not capabilities.folds_case and as_read != name:
            quoted = sql.quoted(name, capabilities.dialect)
            replaced = replaced[: token.start] + quoted + replaced[token.end :]
    shown = _without_semicolons(replaced, lexis)
    last = tokens_of(shown, lexis)[-1]
    ends_in_comment = last.kind == "comment" and not last.text.startswith("/*")
    return UserExpression(
        f"({shown}\n)" if ends_in_comment else f"({shown})",
        tuple(reversed(read)),
        tuple(reversed(unknown)),
        frozenset(quoted_names),
    )


def columns_of_expression(
    text: str, columns: Collection[str], capabilities: Capabilities
) -> list[str]:
    """Return the columns that an expression reads, each once, for lineage."""
    return list(read_expression(text, dict.fromkeys(columns), capabilities).columns)


def _names_in(text: str, capabilities: Capabilities) -> list[tuple[Token, bool]]:
    """Return the tokens that may name columns, and whether the parser, or quotes, say so."""
    places = _column_places(text, capabilities.dialect)
    found = []
    for before, token, after in with_neighbours(significant(text, capabilities.lexis)):
        follows_dot = before is not None and before.text == "."
        is_called = after is not None and after.text == "("
        if not token.is_name or follows_dot or is_called:
            continue
        is_column = token.kind == "quoted" if places is None else token.start in places
        found.append((token, is_column))
    return found


@lru_cache(maxsize=4096)
def _column_places(text: str, dialect: str) -> frozenset[int] | None:
    """Return where the names of columns stand; None where the text cannot be parsed."""
    head = "SELECT "
    try:
        tree = sqlglot.parse_one(head + text, dialect=dialect)
    except (SqlglotError, RecursionError):
        return None
    found = set()
    for column in tree.find_all(exp.Column):
        first = column.parts[0]
        if not isinstance(first, exp.Identifier):
            continue
        if "start" not in first.meta:
            return None
        found.add(first.meta["start"] - len(head))
    return frozenset(found)


@lru_cache(maxsize=1024)
def tree_of_query(text: str, dialect: str) -> exp.Query | None:
    """Return a query's tree, to be looked at and not changed; None where it cannot be parsed."""
    try:
        trees = [tree for tree in sqlglot.parse(text, dialect=dialect) if tree is not None]
    except (SqlglotError, RecursionError):
        return None
    return trees[0] if len(trees) == 1 and isinstance(trees[0], exp.Query) else None


def _brief(text: str) -> str:
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= 80 else shown[:77] + "...")
