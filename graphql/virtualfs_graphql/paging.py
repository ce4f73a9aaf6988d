"""Lists in pages: what matches a search, which page comes after a cursor."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from virtualfs.errors import NotFoundError

__all__ = ["is_tagged", "matches", "page_of"]

MAX_PAGE = 1000


def matches(search: str | None, texts: Sequence[str]) -> bool:
    """Tell whether every word of `search` occurs in the texts."""
    if not search:
        return True
    text = "\n".join(texts).casefold()
    return all(word in text for word in search.casefold().split())


def is_tagged(tag: str | None, tags: Mapping[str, str]) -> bool:
    """Tell whether the tag, written ``key`` or ``key:value``, is among the tags."""
    if not tag:
        return True
    key, separator, value = tag.partition(":")
    return key in tags and (not separator or tags[key] == value)


def page_of(
    found: Mapping[tuple[str, ...], Any], first: int | None, after: str | None
) -> tuple[int, list[tuple[str, Any]], bool]:
    """Return the total, one page with cursors, and whether more follows.

    A cursor holds the last item's name, so a page goes on rightly when the catalog has changed.
    """
    size = 50 if first is None else first
    if not 0 <= size <= MAX_PAGE:
        raise NotFoundError(f"first: {size} is not between 0 and {MAX_PAGE}")
    names = sorted(found)
    if after is not None:
        start = _place(after)
        names = [name for name in names if name > start]
    page = [(_cursor(name), found[name]) for name in names[:size]]
    return len(found), page, len(names) > size


def _cursor(name: tuple[str, ...]) -> str:
    return base64.urlsafe_b64encode("\0".join(name).encode()).decode()


def _place(cursor: str) -> tuple[str, ...]:
    try:
        return tuple(base64.b64decode(cursor, b"-_", validate=True).decode().split("\0"))
    except ValueError:
        raise NotFoundError(f"after: {cursor!r} is not a cursor of this list") from None
