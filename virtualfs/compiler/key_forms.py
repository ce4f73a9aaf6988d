"""How an engine compares the strings of join keys: in which form equal ones are the same text.

A column may call strings equal that differ in bytes: ``CHAR(n)`` ignores trailing spaces, a
collation may ignore case or accents. A probe compares constants as the column would, and reads no
row.
"""

from __future__ import annotations

from collections.abc import Sequence

from virtualfs.compiler import sql

__all__ = ["UNKNOWN_FORM", "form_of", "forms_of", "key_form_probe"]

UNKNOWN_FORM = "unknown"
"""Of keys whose comparison cannot be repeated outside the engine."""
_PAIRS = (
    ("pads", "a", "a "),
    ("stored_pads", "a ", "a"),
    ("folds", "a", "A"),
    ("folds_all", "é", "É"),
    ("accents", "e", "é"),
    ("signs", "ab", "a-b"),
    ("widths", "a", "\uff41"),
    ("letters", "ss", "ß"),
    ("composed", "\u00e9", "e\u0301"),
)


def key_form_probe(select: str, columns: Sequence[str], dialect: str) -> str:
    """Return the SELECT whose one row says which pairs of strings each column calls equal."""
    answers = [
        # As in a look-up, where the other side is a column of plain text.
        f"COALESCE({sql.reserved('r')}.{sql.quoted(column, dialect)}, '{one}') = "
        f"CAST('{other}' AS VARCHAR) AS {sql.reserved(f'{name}_{number}')}"
        for number, column in enumerate(columns)
        for name, one, other in _PAIRS
    ]
    names = ", ".join(sql.quoted(column, dialect) for column in columns)
    none = f"(SELECT {names} FROM (\n{select}\n) AS {sql.reserved('s')} LIMIT 0)"  # noqa: S608
    return (
        f"SELECT {', '.join(answers)} FROM (SELECT 1 AS {sql.reserved('one')}) AS "  # noqa: S608
        f"{sql.reserved('o')} LEFT JOIN {none} AS {sql.reserved('r')} ON 1 = 1"
    )


def form_of(equal: Sequence[bool]) -> str:
    """Return a column's form, in words, from the answers to its pairs.

    It is empty where equal means identical. ``stored-padded``: what the column gives has trailing
    spaces, which do not count, and what it is compared with may have none.
    """
    found = {name for (name, _, _), is_equal in zip(_PAIRS, equal, strict=True) if is_equal}
    if found & {"accents", "signs", "widths", "letters", "composed"}:
        return UNKNOWN_FORM
    padding = "padded" if "pads" in found else "stored-padded" if "stored_pads" in found else ""
    case = "nocase" if "folds_all" in found else "ascii-nocase" if "folds" in found else ""
    return " ".join(part for part in (padding, case) if part)


def forms_of(columns: Sequence[str], answers: Sequence[bool]) -> dict[str, str]:
    """Return the forms of columns from the row of :func:`key_form_probe`; exact ones are absent."""
    size = len(_PAIRS)
    forms = {
        column: form_of(answers[number * size : (number + 1) * size])
        for number, column in enumerate(columns)
    }
    return {column: form for column, form in forms.items() if form}
