"""Spans for OpenTelemetry, where it is installed; otherwise nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["query_span", "span"]

try:
    from opentelemetry import trace
except ImportError:
    _tracer: Any = None
else:
    _tracer = trace.get_tracer("virtualfs")


def _is_traced() -> bool:
    """Tell whether somebody has said where spans go; without that they cost time for nothing."""
    return _tracer is not None and not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


_NOTHING: AbstractContextManager[Any] = nullcontext()


def span(name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Return a span around what is done in it."""
    if not _is_traced():
        return _NOTHING
    found: AbstractContextManager[Any] = _tracer.start_as_current_span(name, attributes=attributes)
    return found


def query_span(view: str, keys: int, started: float, failed: bool) -> None:
    """Note a query that has ended as a span.

    Parameters
    ----------
    started
        When it began, in seconds since 1970.
    """
    if _is_traced():
        attributes = {"virtualfs.view": view, "virtualfs.keys": keys, "error": failed}
        made = _tracer.start_span(
            "warehouse look-up", start_time=int(started * 1e9), attributes=attributes
        )
        made.end(end_time=time.time_ns())
