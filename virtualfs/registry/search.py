"""Finding features, views, services and entities by words, the best match first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from virtualfs.definitions.project import kind_in_words
from virtualfs.display import Block, Grid, Note, Shown
from virtualfs.registry.indexing import Document
from virtualfs.registry.repository import Registry
from virtualfs.registry.state import State
from virtualfs.registry.tables import documents

__all__ = ["Found", "SearchResult", "search"]

_EXACT, _NAME, _NAME_START, _NAME_PART = 100.0, 20.0, 12.0, 3.0
_LABEL, _DESCRIPTION, _WORD = 5.0, 4.0, 2.0
_PART = 0.5
"""What a part of a word is worth beside the whole one."""
_KINDS = {"feature_service": 1.1, "feature_view": 1.1, "on_demand_feature_view": 1.1}
"""What a match in an object as a whole is worth beside one in a feature."""


@dataclass(frozen=True)
class Found:
    """One match: a feature (``view:feature``), or an object by its name."""

    kind: str
    name: str
    description: str
    labels: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the match as plain data."""
        return {"kind": self.kind, "name": self.name, "description": self.description}


@dataclass(frozen=True)
class SearchResult(Shown):
    """What was found, the best match first."""

    text: str
    found: tuple[Found, ...]

    def __iter__(self) -> Any:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def _blocks(self) -> list[Block]:
        if not self.found:
            return [Note(f"Nothing found for {self.text!r}.")]
        rows = [(kind_in_words(item.kind), item.name, item.description) for item in self.found]
        return [Grid(("kind", "name", "description"), rows)]


def search(registry: Registry, state: State, text: str, limit: int = 50) -> SearchResult:
    """Find what all words of a text occur in: names, descriptions, owners, tags, columns, tables.

    Whole words count more than parts, names more than descriptions, these more than columns.
    """
    words = _split(text)
    if not words:
        return SearchResult(text, ())
    # The database leaves out what lacks a word; what it holds is in lower case already.
    held = [documents.c.body.contains(word, autoescape=True) for word in words]
    scored = (
        (_score(document, words, text), document)
        for document in registry.index.documents(state, *held)
    )
    found = sorted(
        (item for item in scored if item[0] > 0),
        key=lambda item: (-item[0], item[1].key, item[1].feature),
    )
    return SearchResult(text, tuple(_found(score, item) for score, item in found[:limit]))


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"[^\W_]+", text.lower())))


def _score(document: Document, words: Sequence[str], text: str) -> float:
    kind, holder = document.key
    name = document.feature or holder
    total = _EXACT * (text.strip().lower() in (name.lower(), f"{holder}:{name}".lower()))
    fields = [
        (_split(document.labels), _LABEL),
        (_split(document.description), _DESCRIPTION),
        (_split(document.words), _WORD),
        *([(_split(holder), _WORD)] if document.feature else []),
    ]
    named = _split(name)
    for word in words:
        best = max((_in_name(word, part) for part in named), default=0.0)
        for field, weight in fields:
            if word in field:
                best = max(best, weight)
            elif any(word in part for part in field):
                best = max(best, weight * _PART)
        if best == 0:
            return 0.0
        total += best
    # Of two names that hold the words, the one that says less beside them.
    return (total + 1 / (1 + len(named))) * _KINDS.get("" if document.feature else kind, 1.0)


def _in_name(word: str, part: str) -> float:
    if word == part:
        return _NAME
    return _NAME_START if part.startswith(word) else _NAME_PART if word in part else 0.0


def _found(score: float, document: Document) -> Found:
    kind, name = document.key
    if document.feature:
        return Found("feature", f"{name}:{document.feature}", document.description,
                     document.labels, score)  # fmt: skip
    return Found(kind, name, document.description, document.labels, score)
