"""Structured logs: one JSON object a line on stderr. Touches: the process's logging.

A line has time, level, logger, message, and the facts of the record; a trace stands in it as text, so that one event
stays one line. No body, no token and no key of a person is among the facts: who logs does not put them there.
"""

from __future__ import annotations

import logging
from typing import TextIO

import msgspec

from headrace.core.times import Instant, iso

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "time": iso(Instant(int(record.created * 1e6))),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(said, enc_hook=str).decode()


def to_stream(stream: TextIO) -> None:
    """All of the process's log lines, from INFO on, to this stream. uvicorn's own talk only where something failed."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
