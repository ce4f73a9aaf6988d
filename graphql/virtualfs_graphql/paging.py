"""Lists in pages: what matches a search, which page comes after a cursor."""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from virtualfs.errors import NotFoundError

__all__ = ["Page", "is_tagged", "matches", "page_of", "page_size"]

T = TypeVar("T")
MAX_PAGE = 1000


def matches(search: str | None, texts: Callable[[], Sequence[str]]) -> bool:
    """Tell whether every word of `search` occurs in the texts, which are asked for if need be."""
    if not search:
        return True
    text = "\n".join(texts()).casefold()
    return all(word in text for word in search.casefold().split())


def is_tagged(tag: str | None, tags: Mapping[str, str]) -> bool:
    """Tell whether the tag, written ``key`` or ``key:value``, is among the tags."""
    if not tag:
        return True
    key, separator, value = tag.partition(":")
    return key in tags and (not separator or tags[key] == value)


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some items of a list, each with its cursor."""

    items: list[T]
    cursors: list[str]
    has_next: bool
    has_previous: bool


def page_size(first: int | None, default: int) -> int:
    """Return how many items a page has.

    Raises
    ------
    NotFoundError
        It is out of bounds.
    """
    size = default if first is None else first
    if not 0 <= size <= MAX_PAGE:
        raise NotFoundError(f"first: {size} is not between 0 and {MAX_PAGE}")
    return size


def page_of(found: Mapping[tuple[str, ...], T], first: int | None, after: str | None) -> Page[T]:
    """Return one page of what was found, by name.

    A cursor holds an item's name, so a page goes on rightly when the catalog has changed.
    """
    size = page_size(first, 50)
    names = sorted(found)
    start = 0 if after is None else bisect_right(names, _place(after))
    shown = names[start : start + size]
    return Page(
        [found[name] for name in shown],
        [_cursor(name) for name in shown],
        start + size < len(names),
        start > 0,
    )


def _cursor(name: tuple[str, ...]) -> str:
    return base64.urlsafe_b64encode("\0".join(name).encode()).decode()


def _place(cursor: str) -> tuple[str, ...]:
    try:
        return tuple(base64.b64decode(cursor, b"-_", validate=True).decode().split("\0"))
    except ValueError:
        raise NotFoundError(f"after: {cursor!r} is not a cursor of this list") from None
