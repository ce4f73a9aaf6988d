"""Every error that VirtualFS raises on purpose.

::

    VirtualFSError
    ├── ConfigError (ValueError)                       virtualfs.toml or a setting is wrong
    ├── DefinitionError (ValueError)                   a definition is wrong or contradicts another
    ├── NotFoundError (LookupError)                    a name is not known; near names are offered
    ├── PlanConflictError (RuntimeError)               the registry moved since the plan was made
    │   └── BreakingChangeError                     views that services pin would break
    ├── UnsupportedByWarehouseError (NotImplementedError)   the warehouse cannot push this down
    ├── SpineError (ValueError)                        the spine or the online keys do not fit
    ├── WarehouseError (RuntimeError)                  the warehouse refused or is out of reach
    │   └── WarehouseUnavailableError               it is out of reach, or did not answer in time
    ├── OnlineStoreError (RuntimeError)                the cache is out of reach, or full
    ├── TrainingSetDamagedError (ValueError)       a saved training set is not what was saved
    ├── RegistryError (RuntimeError)                   the registry cannot be read or written
    └── PermissionDeniedError (PermissionError)        a token or role may not do this

A message says what is wrong, where, what was expected, and what to do next. Secrets never appear.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable

__all__ = [
    "BreakingChangeError",
    "ConfigError",
    "DefinitionError",
    "FeatureDeprecationWarning",
    "LimitError",
    "NotFoundError",
    "OnlineStoreError",
    "PermissionDeniedError",
    "PlanConflictError",
    "RegistryError",
    "SpineError",
    "TrainingSetDamagedError",
    "UnsupportedByWarehouseError",
    "VirtualFSError",
    "WarehouseError",
    "WarehouseUnavailableError",
]


Problem = tuple[tuple[str | int, ...], str]
"""Where in an input something is wrong, and what."""


class VirtualFSError(Exception):
    """The base of every error that VirtualFS raises on purpose.

    Parameters
    ----------
    problems
        What is wrong in parts of an input, where more than the message can be told.
    """

    def __init__(self, *arguments: object, problems: Iterable[Problem] = ()) -> None:
        super().__init__(*arguments)
        self.problems: tuple[Problem, ...] = tuple(problems)

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(VirtualFSError, ValueError):
    """The configuration file, or a setting in it, is wrong."""


class DefinitionError(VirtualFSError, ValueError):
    """A definition is wrong in itself, or contradicts another or its warehouse."""


class NotFoundError(VirtualFSError, LookupError):
    """A name is not known. The message offers close matches."""


class PlanConflictError(VirtualFSError, RuntimeError):
    """The registry has moved on since the plan was made; plan again."""


class BreakingChangeError(PlanConflictError):
    """Views that services pin would change for those who read them."""


class UnsupportedByWarehouseError(VirtualFSError, NotImplementedError):
    """The warehouse cannot do what was asked; nothing has been run."""


class SpineError(VirtualFSError, ValueError):
    """The spine of a training dataset, or the keys of a lookup, do not fit the features."""


class WarehouseError(VirtualFSError, RuntimeError):
    """The warehouse refused a query or cannot be reached."""


class WarehouseUnavailableError(WarehouseError):
    """The warehouse is out of reach, or did not answer in time."""


class OnlineStoreError(VirtualFSError, RuntimeError):
    """The online store is out of reach, or refuses to write."""


class RegistryError(VirtualFSError, RuntimeError):
    """The registry cannot be opened, read or written."""


class TrainingSetDamagedError(VirtualFSError, ValueError):
    """A saved training set does not hold what was saved."""


class PermissionDeniedError(VirtualFSError, PermissionError):
    """The caller may not do this."""


class LimitError(VirtualFSError, ValueError):
    """One request asks for more than the server's limits allow."""


class FeatureDeprecationWarning(FutureWarning):
    """A feature, view or service that was asked for should no longer be used."""


def warn_deprecated(messages: Iterable[str], stacklevel: int) -> None:
    """Warn of what should no longer be asked for.

    Parameters
    ----------
    stacklevel
        Of the caller who asked, counted from who calls this.
    """
    for message in messages:
        warnings.warn(printable(message), FeatureDeprecationWarning, stacklevel=stacklevel + 1)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the names nearest to `name`, or lists the few there are.

    >>> did_you_mean("temperture", ["temperature", "humidity"])
    "Did you mean 'temperature'?"
    >>> did_you_mean("x", ["temperature", "humidity"])
    'Known: humidity, temperature.'
    >>> did_you_mean("x", [])
    'There are none yet.'
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(repr(match) for match in close)}?"
    if not names:
        return "There are none yet."
    shown = ", ".join(names[:12])
    return f"Known: {shown}{', ...' if len(names) > 12 else ''}."


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    r"""Return `text` with control characters written out, so that none reaches a terminal.

    Line breaks and tabs stay.

    >>> printable("clear \x1b[2J")
    'clear \\x1b[2J'
    """
    return _CONTROLS.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


def without_secrets(text: str) -> str:
    """Return `text` with the passwords of any URLs in it replaced by ``***``.

    >>> without_secrets("postgresql://ann:s3cret@db/prod is down")
    'postgresql://ann:***@db/prod is down'
    """
    text = re.sub(r"(\w[\w+.\-]*://[^\s:/@]*:)\S+(?=@)", r"\1***", text)
    return re.sub(r"(?i)\b(password|passwd|token|secret)=[^\s&;]+", r"\1=***", text)
