"""Errors as RFC 9457 problem details. Pure.

The one idea: what the caller can mend is said in full, with the field and the place; what only the operator can mend is
said by its code alone, and in full in the log. So no path, no trace and no secret leaves the server.
"""

from __future__ import annotations

import msgspec

from headrace.core.errors import (
    ConflictError,
    HeadraceError,
    InputError,
    LogError,
    NotFoundError,
    SchemaError,
    StateError,
    UsageError,
)

CONTENT_TYPE = b"application/problem+json"
SAID_MAX = 500  # characters of one text

# Facts of an error that a caller may see; the others may hold paths.
_FACTS = ("topic", "kind", "name", "decision", "position", "scope", "view")
_TITLES = {
    400: "The request cannot be read",
    401: "No valid token",
    403: "The token does not allow this",
    404: "There is no such thing",
    405: "The method is not allowed here",
    408: "The request took too long to arrive",
    409: "The id is known with another payload",
    413: "The body is too large",
    415: "The content type is not taken here",
    421: "The request is meant for another server",
    422: "A value does not fit",
    431: "The headers are too large",
    500: "The server failed",
    503: "The server cannot do this now",
}
_STATUSES = {
    "HR-1001": 404,
    "HR-1002": 405,
    "HR-1003": 415,
    "HR-1004": 413,
    "HR-1005": 400,
    "HR-1006": 400,
    "HR-1007": 400,
    "HR-1008": 503,
    "HR-1009": 401,
    "HR-1010": 403,
    "HR-1011": 408,
    "HR-1012": 431,
    "HR-1017": 421,
    "HR-1018": 500,
    "HR-1020": 503,
    "HR-1021": 404,
    "HR-0541": 422,  # TOO_OLD: the caller chose the instant
}


class Problem(msgspec.Struct, omit_defaults=True):
    """Problem details, and headrace's own members behind the standard's. row: of a list of events, from 0."""

    type: str
    title: str
    status: int
    detail: str = ""
    code: str = ""
    hint: str = ""
    field: str | None = None
    row: int | None = None
    retryable: bool = False
    facts: dict[str, object] = {}


def status_of(error: HeadraceError) -> int:
    """The HTTP status: 4xx where another request would do, 503 where another time or an operator would."""
    found = _STATUSES.get(error.code)
    if found is not None:
        return found
    match error:
        case ConflictError():
            return 409
        case SchemaError() | InputError():
            return 422
        case UsageError():
            return 400
        case NotFoundError():
            return 404
        case LogError() | StateError():
            return 503
    return 503 if error.retryable else 500


def problem_of(error: HeadraceError) -> Problem:
    """type: the path of the code's page in the documentation."""
    status = status_of(error)
    shown = error if status < 500 or error.code.startswith("HR-10") else None
    facts = {n: _plain(error.facts[n]) for n in _FACTS if n in error.facts} if shown else {}
    row = error.facts.get("row")
    said = error.message if not error.detail else f"{error.message}: {error.detail}"
    return Problem(
        type=f"/docs/errors/{error.code}",
        title=_TITLES[status],
        status=status,
        code=error.code,
        detail=_cut(said) if shown else "the server's log says more under this code",
        hint=error.hint if shown else "",
        field=_cut(str(error.facts["field"])) if shown and "field" in error.facts else None,
        row=row if shown and isinstance(row, int) else None,
        retryable=error.retryable or status == 503,
        facts=facts,
    )


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | bool | None) else _cut(str(value))


def _cut(text: str) -> str:
    """What a caller sent is not sent back whole."""
    return text if len(text) <= SAID_MAX else f"{text[:SAID_MAX]}..."


def encode(problem: Problem) -> bytes:
    return msgspec.json.encode(problem)
