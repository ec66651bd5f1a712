"""Bodies of requests as values, or refused with the place. Pure.

The one idea: the fast decoder takes the last of two equal keys, and two readers of one payload must never see different
values; so a flat object is proven to hold each key once by counting its quotes, which costs a tenth of decoding it, and
only what cannot be proven so is read again by a slower reader that sees every pair.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from headrace.core.errors import InputError

T = TypeVar("T")
Event = dict[str, object]

EVENTS_MAX = 100_000  # of one call; a larger load is several calls, or an import
_decode = msgspec.json.Decoder().decode


class KeysBody(msgspec.Struct, forbid_unknown_fields=True):
    """A batch read: keys (a list for an entity of several parts), and the instant to ask at, now where left out."""

    keys: list[int | str | list[int | str]]
    t: str | None = None


_decode_keys = msgspec.json.Decoder(KeysBody).decode


def object_of(body: bytes) -> Event:
    """One JSON object. Raises: InputError HR-1005, HR-1006."""
    found = _read(_decode, body)
    if type(found) is not dict:
        raise _not_object(found, "the body")
    if not _surely_once(body, (found,)):
        refuse_repeated_keys(body)
    return found


def events_of(body: bytes) -> list[Event]:
    """One JSON object, or a list of them. Raises: InputError HR-1005, HR-1006."""
    found = _read(_decode, body)
    events = found if type(found) is list else [found]
    for place, event in enumerate(events):
        if type(event) is not dict:
            raise _not_object(event, "the body" if events is not found else f"event {place}", row=place)
    check_count(len(events))
    if not _surely_once(body, events):
        refuse_repeated_keys(body)
    return events


def lines_of(body: bytes) -> list[Event]:
    """One JSON object a line; empty lines are left out. Raises: InputError HR-1005, HR-1006, with the line."""
    check_count(body.count(b"\n"))  # before they are split: empty lines cost memory too
    events: list[Event] = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            events.append(object_of(line))
        except InputError as error:
            error.message = f"line {number}: {error.message}"
            error.facts["row"] = len(events)
            raise
    return events


def keys_of(body: bytes, keys_max: int) -> KeysBody:
    """Raises: InputError HR-1005, HR-1006."""
    found = _read(_decode_keys, body)
    if body.count(b'"keys"') > 1 or body.count(b'"t"') > 1:
        refuse_repeated_keys(body)
    if not 1 <= len(found.keys) <= keys_max:
        raise InputError(
            "HR-1006", f"{len(found.keys)} keys", detail=f"expected 1 to {keys_max}", hint="ask in parts", field="keys"
        )
    return found


def refuse_repeated_keys(body: bytes) -> None:
    """Raises: InputError HR-1006 where an object of the body has a key twice."""

    def pairs(found: Sequence[tuple[str, object]]) -> None:
        names = set()
        for name, _ in found:
            if name in names:
                raise InputError("HR-1006", f"the key {name!r} stands twice in one object", field=name)
            names.add(name)

    try:
        json.loads(body, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:  # what the one reader takes and the other does not
        raise InputError("HR-1005", "the body is not JSON", detail=first_line(error)) from error


def _surely_once(body: bytes, objects: Sequence[Event]) -> bool:
    """Whether no key can stand twice: flat objects whose keys and texts account for every quote."""
    if b"\\" in body:
        return False
    quotes = 0
    for each in objects:
        quotes += 2 * len(each)
        for value in each.values():
            kind = type(value)
            if kind is str:
                quotes += 2
            elif kind is dict or kind is list:
                return False
    return body.count(b'"') == quotes


def _read(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        refused = InputError("HR-1006", f"the body does not fit: {error}")
        if place := _path(str(error)):
            refused.facts["field"] = place
        raise refused from error
    except msgspec.DecodeError as error:
        raise InputError("HR-1005", "the body is not JSON", detail=str(error)) from error
    except UnicodeDecodeError as error:
        raise InputError(
            "HR-1005", "the body is not UTF-8", detail=f"seen byte {error.object[error.start]:#x}"
        ) from error
    except RecursionError as error:
        raise InputError("HR-1006", "the body is nested too deeply", detail="expected a flat object") from error


def _path(message: str) -> str:
    """The field in msgspec's words, which end in "at `$.keys[3]`"."""
    _, _, path = message.rpartition("`$")
    return path.rstrip("`").lstrip(".") if path not in (message, "[...]`") else ""


def _not_object(seen: object, what: str, row: int | None = None) -> InputError:
    words = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a boolean", type(None): "null"}
    said = f"{what} is {words.get(type(seen), 'something else')}"
    expected = "expected a JSON object"
    return (
        InputError("HR-1006", said, detail=expected)
        if row is None
        else InputError("HR-1006", said, detail=expected, row=row)
    )


def check_count(count: int) -> None:
    """Raises: InputError HR-1006 for more events than a call may bring."""
    if count > EVENTS_MAX:
        raise InputError(
            "HR-1006", "too many events in one call", detail=f"expected at most {EVENTS_MAX:,}", hint="send parts"
        )


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
