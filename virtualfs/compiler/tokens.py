"""SQL text divided into tokens, as its engine divides it, without a syntax tree.

SQL that users write runs as it was written, so it is never printed from a tree. Its tokens tell
where a statement ends, whether its parentheses are balanced, and which functions it calls. Text
that cannot be divided with certainty is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from virtualfs.capabilities import Lexis
from virtualfs.errors import DefinitionError

__all__ = ["Call", "Token", "arguments_of", "calls_in", "is_word", "significant", "tokens_of"]

Kind = Literal[
    "word", "quoted", "string", "number", "operator", "punctuation", "comment", "parameter"
]
_WORD = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(
    r"0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][+-]?[0-9]+)?"
)
_DIGITS = tuple("0123456789")
_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|?:`\\]")
_SPACE = " \t\n\r\f\v"
"""What every engine takes for white space; other spaces are letters of names to some."""
_DOLLAR = re.compile(r"\$(?:[^\W\d]\w*)?\$")
_PARAMETER = re.compile(r"\$\d+|\$[^\W\d]\w*")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Token:
    """One token and its position in the text.

    Parameters
    ----------
    text
        As written.
    value
        Of a quoted name the name, of a word the word as written, of a string without
        escapes its content, of others the text.
    start, end
        Offsets in characters.
    """

    kind: Kind
    text: str
    value: str
    start: int
    end: int

    @property
    def has_prefix(self) -> bool:
        """Whether it is a string with letters before it, such as ``E'a'``."""
        return self.kind == "string" and self.text[0].isalpha()

    @property
    def is_name(self) -> bool:
        """Whether it may name something."""
        return self.kind in ("word", "quoted")


@dataclass(frozen=True)
class Call:
    """A name followed by parentheses.

    Parameters
    ----------
    name
        The last part of the name, as written, without quotes.
    qualifiers
        The parts before it.
    arguments
        How many there are.
    position
        Of the name, among the tokens.
    """

    name: str
    qualifiers: tuple[str, ...]
    arguments: int
    position: int


@lru_cache(maxsize=512)
def tokens_of(text: str, lexis: Lexis) -> tuple[Token, ...]:
    """Divide a text into tokens; white space is left out, comments are not.

    Raises
    ------
    DefinitionError
        A quote, comment or parenthesis is not closed, or the text holds what no engine reads alike.
    """
    found = tuple(_tokens(text, lexis))
    open_marks: list[Token] = []
    for token in found:
        if token.kind != "punctuation":
            continue
        if token.text in _CLOSING:
            open_marks.append(token)
        elif token.text in ")]}" and (
            not open_marks or _CLOSING[open_marks.pop().text] != token.text
        ):
            raise DefinitionError(f"not SQL: {token.text!r} closes nothing{_at(text, token)}")
    if open_marks:
        raise DefinitionError(
            f"not SQL: {open_marks[-1].text!r} is not closed{_at(text, open_marks[-1])}"
        )
    return found


def significant(text: str, lexis: Lexis) -> tuple[Token, ...]:
    r"""Return the tokens of a text without its comments.

    >>> [token.text for token in significant("a -- one\n + 1", Lexis())]
    ['a', '+', '1']
    """
    return tuple(token for token in tokens_of(text, lexis) if token.kind != "comment")


def is_word(token: Token, *words: str) -> bool:
    """Tell whether a token is one of some words, which are in lower case, unquoted."""
    return token.kind == "word" and token.text.lower() in words


def calls_in(tokens: Sequence[Token]) -> Iterator[Call]:
    """Yield every name that parentheses follow, functions and others alike.

    >>> [(call.name, call.arguments) for call in calls_in(significant("f(a, g(b))", Lexis()))]
    [('f', 2), ('g', 1)]
    """
    for position, token in enumerate(tokens[:-1]):
        if not token.is_name or tokens[position + 1].text != "(":
            continue
        if tokens[position + 1].kind != "punctuation":
            continue
        qualifiers: list[str] = []
        before = position
        while before >= 2 and tokens[before - 1].text == "." and tokens[before - 2].is_name:
            qualifiers.insert(0, tokens[before - 2].value)
            before -= 2
        yield Call(token.value, tuple(qualifiers), _arguments(tokens, position + 1), position)


def arguments_of(tokens: Sequence[Token], opening: int) -> Sequence[Token]:
    """Return the tokens between a parenthesis and the one that closes it."""
    depth = 0
    for position in range(opening, len(tokens)):
        if tokens[position].kind == "punctuation":
            depth += (tokens[position].text in _CLOSING) - (tokens[position].text in ")]}")
        if depth == 0:
            return tokens[opening + 1 : position]
    return tokens[opening + 1 :]


def _arguments(tokens: Sequence[Token], opening: int) -> int:
    depth = commas = 0
    for token in tokens[opening:]:
        if token.kind != "punctuation":
            continue
        if token.text in _CLOSING:
            depth += 1
        elif token.text in ")]}":
            depth -= 1
            if depth == 0:
                break
        elif token.text == "," and depth == 1:
            commas += 1
    is_empty = tokens[opening + 1].text == ")" and tokens[opening + 1].kind == "punctuation"
    return 0 if is_empty else commas + 1


def _tokens(text: str, lexis: Lexis) -> Iterator[Token]:
    position = 0
    while position < len(text):
        char = text[position]
        if char in _SPACE:
            position += 1
            continue
        kind, end, value = _next(text, position, lexis)
        yield Token(kind, text[position:end], text[position:end] if value is None else value,
                    position, end)  # fmt: skip
        position = end


def _next(text: str, start: int, lexis: Lexis) -> tuple[Kind, int, str | None]:
    char, two = text[start], text[start : start + 2]
    if char == "\0":
        raise DefinitionError("not SQL: it holds a NUL character")
    if two == "--" or (two in lexis.line_comments) or (char in lexis.line_comments):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if lexis.string_escapes and text[start:end].rstrip("\r").endswith("\\"):
            raise DefinitionError("not SQL: a comment that ends in a backslash may go on")
        return "comment", end, None
    if two == "/*":
        return "comment", _comment_end(text, start, lexis), None
    if char in lexis.name_quotes:
        end, value = _quoted_end(text, start, lexis.name_quotes[char], lexis.names_escape)
        return "quoted", end, value
    if char in lexis.string_quotes:
        return _string(text, start, lexis.string_escapes)
    word = _WORD.match(text, start)
    if word is not None:
        after = text[word.end() : word.end() + 1]
        prefix = word.group().lower()
        if after in ("'", *lexis.string_quotes) and after and prefix in lexis.string_prefixes:
            return _string(text, word.end(), lexis.string_prefixes[prefix])
        if prefix == "u" and text[word.end() : word.end() + 2] in ("&'", '&"'):
            raise DefinitionError(
                f"{text[start : start + 4]}... : Unicode escapes (U&) are not read; write the "
                "characters themselves"
            )
        return "word", word.end(), None
    if char == "$":
        dollar = _DOLLAR.match(text, start) if lexis.dollar_quotes else None
        if dollar is not None and dollar.group() != "$$" and not lexis.dollar_tags:
            dollar = None
        if dollar is not None:
            end = text.find(dollar.group(), dollar.end())
            if end < 0:
                raise DefinitionError(f"not SQL: {dollar.group()} is not closed")
            return "string", end + len(dollar.group()), text[dollar.end() : end]
        parameter = _PARAMETER.match(text, start)
        if parameter is not None:
            return "parameter", parameter.end(), None
    if char in _DIGITS or (char == "." and text[start + 1 : start + 2] in _DIGITS):
        number = _NUMBER.match(text, start)
        if number is not None:
            return "number", number.end(), None
    if char in "()[]{},;.":
        return "punctuation", start + 1, None
    if char in lexis.parameters:
        named = _WORD.match(text, start + 1)
        if char == "?" or (named is not None and text[start - 1 : start] != ":"):
            end = named.end() if named is not None and char != "?" else start + 1
            return "parameter", end, None
    if _OPERATOR.match(char):
        return "operator", _operator_end(text, start, lexis), None
    raise DefinitionError(f"not SQL: the character {char!r} has no meaning there")


def _operator_end(text: str, start: int, lexis: Lexis) -> int:
    if text.startswith("::", start):  # a cast, never part of a longer operator
        return start + 2
    end = start + 1
    while end < len(text) and _OPERATOR.match(text[end]):
        two = text[end : end + 2]
        begins_other = two in ("--", "/*", "::") or text[end] in lexis.name_quotes
        begins_other = begins_other or text[end] in lexis.string_quotes
        if begins_other or text[end] in lexis.line_comments or text[end] in lexis.parameters:
            break
        end += 1
    return end


def _comment_end(text: str, start: int, lexis: Lexis) -> int:
    depth, position = 1, start + 2
    while position < len(text):
        two = text[position : position + 2]
        if two == "*/":
            depth -= 1
            position += 2
            if depth == 0:
                return position
        elif two == "/*" and lexis.nested_comments:
            depth += 1
            position += 2
        else:
            position += 1
    raise DefinitionError("not SQL: a comment /* is not closed")


def _string(text: str, start: int, escapes: bool) -> tuple[Kind, int, str]:
    quote = text[start]
    if quote == '"' and text.startswith(quote * 3, start):
        raise DefinitionError(f"strings in {quote * 3} are not read; write them in one quote")
    end, value = _quoted_end(text, start, quote, escapes)
    return "string", end, value


def _quoted_end(text: str, start: int, quote: str, escapes: bool) -> tuple[int, str]:
    position, parts = start + 1, []
    while position < len(text):
        char = text[position]
        if escapes and char == "\\":
            parts.append(text[position : position + 2])
            position += 2
        elif char != quote:
            parts.append(char)
            position += 1
        elif text[position + 1 : position + 2] == quote and quote != "]":
            parts.append(quote)
            position += 2
        else:
            return position + 1, "".join(parts)
    raise DefinitionError(f"not SQL: {text[start : start + 20]!r} opens a quote that is not closed")


def _at(text: str, token: Token) -> str:
    line = text.count("\n", 0, token.start) + 1
    column = token.start - text.rfind("\n", 0, token.start)
    return f" (line {line}, column {column})"
