"""Files that are written whole or not at all, under names that no other writer has."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["claim", "orphans", "temporary", "write_text"]

_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{12}\.part")
_ORPHANED_AFTER = 3600.0
"""Seconds without a write after which the file of a process that is gone is an orphan."""
_PASSED = frozenset((".git", ".venv", "node_modules", "__pycache__"))


def temporary(target: Path) -> Path:
    """Return a name beside a file's own, to write it under until it is finished."""
    return target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:12]}.part")


def claim(part: Path, target: Path) -> None:
    """Give a finished file its name, unless another has it by now.

    Raises
    ------
    FileExistsError
        Another process or thread wrote to that path meanwhile.
    """
    try:
        target.touch(exist_ok=False)  # made by one alone
    except FileExistsError:
        raise FileExistsError(
            f"{target} was written by another meanwhile; choose another path or pass overwrite=True"
        ) from None
    part.replace(target)


def write_text(target: Path, text: str, *, overwrite: bool = False) -> None:
    """Write a text file, whole or not at all.

    Raises
    ------
    FileExistsError
        Something stands at the path, and `overwrite` is false.
    """
    part = temporary(target)
    try:
        part.write_text(text, encoding="utf-8")
        if overwrite:
            part.replace(target)
        else:
            claim(part, target)
    finally:
        part.unlink(missing_ok=True)


def orphans(folder: Path) -> Iterator[Path]:
    """Yield the unfinished files below a folder that killed processes have left."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _PASSED]
        for name in names:
            match = _TEMPORARY.fullmatch(name)
            path = Path(place) / name
            if match is not None and _is_orphaned(path, int(match[1])):
                yield path


def _is_orphaned(path: Path, process: int) -> bool:
    try:
        if time.time() - path.stat().st_mtime < _ORPHANED_AFTER:
            return False
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it was renamed meanwhile, or the process is another user's
        return False
    return False
