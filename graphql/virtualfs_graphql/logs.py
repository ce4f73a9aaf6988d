"""Logs of a server: as lines of text, or as one JSON object a line; each with its request."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from virtualfs.config import Server
from virtualfs.errors import printable
from virtualfs_graphql.http import REQUEST_ID

__all__ = ["configure_logs"]

_FIELDS = ("operation", "kind", "status", "milliseconds", "errors")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        request = REQUEST_ID.get()
        place = f" [{request}]" if request else ""
        text = f"{at} {record.levelname.lower()} {record.name}{place}: {record.getMessage()}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return printable(text)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        found: dict[str, object] = {
            "time": at, "level": record.levelname.lower(), "logger": record.name,
            "message": record.getMessage(),
        }  # fmt: skip
        if REQUEST_ID.get():
            found["request_id"] = REQUEST_ID.get()
        found |= {name: vars(record)[name] for name in _FIELDS if name in vars(record)}
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


def configure_logs(settings: Server, level: str) -> None:
    """Send the server's logs to the standard error, in the form that the settings say."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if settings.log_format == "json" else _Text())
    logger = logging.getLogger("virtualfs")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    # Changes are logged whatever the level is, as are all requests where that was asked for.
    logging.getLogger("virtualfs.access").setLevel(logging.INFO)
