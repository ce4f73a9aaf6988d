"""Row-wise expressions as they were written: Ibis deferred expressions or SQL text.

The written form is what fingerprints compare, so an upgrade of Ibis or sqlglot, which may render
the same expression as other SQL, never changes a definition's meaning.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

from pydantic import PrivateAttr, model_serializer, model_validator

from virtualfs.definitions.base import Model, fingerprint

__all__ = ["Expression", "checksum"]


class Expression(Model):
    """One row-wise expression, in the language its author wrote it in."""

    language: Literal["ibis", "sql"]
    text: str
    _deferred: Any = PrivateAttr(default=None)
    _made: Any = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: Any) -> Expression:
        if isinstance(value, str):
            value = {"language": "sql", "text": value.strip()}
        elif _is_deferred(value):
            expression: Expression = handler({"language": "ibis", "text": written(value)})
            expression._deferred = value
            return expression
        elif isinstance(value, dict) and set(value) in _EXPORTED:
            made = value.get("sql") or value.get("tree")
            if value["check"] != checksum(value["ibis"], made):
                raise ValueError(
                    "what an export wrote of an Ibis expression was edited; write the SQL alone, "
                    "as in expr: 'temp * 2', or edit the Python that it came from"
                )
            expression = handler({"language": "ibis", "text": value["ibis"]})
            expression._made = made
            return expression
        elif isinstance(value, dict) and len(value) == 1 and set(value) <= {"ibis", "sql"}:
            ((language, text),) = value.items()
            value = {"language": language, "text": text}
        elif not isinstance(value, Expression | dict):
            raise ValueError(
                "an expression is SQL text such as 'temp <= 32', or an Ibis deferred expression "
                f"such as _.temp <= 32, not {type(value).__name__}"
            )
        expression = handler(value)
        if not expression.text:
            raise ValueError("the expression is empty")
        return expression

    @model_serializer
    def _write(self) -> Any:
        return self.text if self.language == "sql" else {"ibis": self.text}

    @property
    def deferred(self) -> Any:
        """The live Ibis deferred expression; None for SQL, or when read back from text."""
        return self._deferred

    @property
    def made(self) -> Any:
        """What was made of an Ibis expression, as an export tells: its SQL, or its tree."""
        return self._made

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Expression):
            return NotImplemented
        return (self.language, self.text) == (other.language, other.text)

    def __hash__(self) -> int:
        return hash((self.language, self.text))


_EXPORTED = ({"ibis", "sql", "check"}, {"ibis", "tree", "check"})


def checksum(text: str, made: Any) -> str:
    """Return what ties an Ibis expression to what was made of it."""
    return fingerprint([text, made])[:12]


def _is_deferred(value: object) -> bool:
    # Whoever holds a deferred expression has imported Ibis already; nobody else need pay for it.
    module = sys.modules.get("ibis.common.deferred")
    return module is not None and isinstance(value, module.Deferred)


def written(value: Any) -> str:
    """Return the structure of an Ibis deferred expression as text that keeps every literal.

    Ibis's own ``repr`` hides the value of ``ibis.literal(2)``, so two different expressions could
    look alike; this walks the structure instead.

    Examples
    --------
    >>> import ibis
    >>> written(ibis._.delay + ibis.literal(2))
    '(_.delay + literal(2, int8))'
    """
    import ibis.common.deferred as d
    import ibis.expr.operations as ops
    import ibis.expr.types as ir

    symbols = d._operator_symbols
    match value:
        case d.Deferred():
            return written(value._resolver)
        case d.Variable():
            return str(value.name)
        case d.Attr():
            return f"{written(value.obj)}.{value.name.value}"
        case d.Item():
            return f"{written(value.obj)}[{written(value.indexer)}]"
        case d.Call():
            arguments = [written(argument) for argument in value.args]
            arguments += [f"{name}={written(value.kwargs[name])}" for name in value.kwargs]
            return f"{written(value.func)}({', '.join(arguments)})"
        case d.UnaryOperator():
            return f"{symbols[value.func]}{written(value.arg)}"
        case d.BinaryOperator():
            return f"({written(value.left)} {symbols[value.func]} {written(value.right)})"
        case d.Sequence():
            return f"[{', '.join(written(item) for item in value.values)}]"
        case d.Mapping():
            pairs = (f"{key!r}: {written(item)}" for key, item in value.values.items())
            return f"{{{', '.join(pairs)}}}"
        case d.JustUnhashable():
            return written(value.value.obj)
        case d.Just():
            return written(value.value)
        case ir.Expr():
            operation = value.op()
            if isinstance(operation, ops.Literal):
                return f"literal({operation.value!r}, {operation.dtype})"
            return repr(operation)
        case list() | tuple():
            return f"[{', '.join(written(item) for item in value)}]"
        case _ if callable(value) and hasattr(value, "__qualname__"):
            name = value.__qualname__
            if "<lambda>" in name:
                raise ValueError("a lambda inside an expression cannot be stored; write it as SQL")
            return str(name)
        case _:
            text = repr(value)
            if " at 0x" in text:
                raise ValueError(f"{text} inside an expression cannot be stored; write it as SQL")
            return text
