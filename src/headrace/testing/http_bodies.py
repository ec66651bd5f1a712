"""Broken bodies from a seed, for endpoints that must refuse them in words. Pure but for the given randomness.

The one idea: start from a body that fits and break it in one to three ways that senders and attackers do: wrong types,
other fields, keys twice, numbers out of range, bytes cut, flipped or put in. Some bodies stay right; the caller knows
by the answer which ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping

VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 0.1, -0.0, 1e308, 5e-324, 1e-7, "", " ", "0", "-1",
    "1e3", "NaN", "Infinity", "12.345", "99999999999999999999", "2026-01-01", "2026-01-01T00:00:00",
    "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z", "2026-13-01T00:00:00Z",
    "2026-01-01T00:00:00.1234567Z", "ü", "日本", "\u0000", "\u202e", "😀", "a" * 5_000, [], {}, [1, 2], {"a": 1}, [[]],
    {"order": {"order": {}}}, "null", "'; drop table x; --", "../../etc/passwd", "%00", "\r\n",
)  # fmt: skip
TOKENS: tuple[bytes, ...] = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"0x10", b"01", b"+1", b"1.", b".5", b"undefined", b"'a'", b"\\ud800",
    b'"\\ud800"', b"\xff", b"\xc3\x28", b"\x00", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\",
    b"/*x*/", b"\n", b"null", b"true", b'"\\u0000"', b"9" * 400, b"-", b"e", b" ",
)  # fmt: skip


def broken(valid: Mapping[str, object], *, seed: int, count: int) -> Iterator[bytes]:
    """Bodies made of one valid object."""
    chance = random.Random(seed)
    for _ in range(count):
        yield _body(dict(valid), chance)


def broken_lists(valid: Mapping[str, object], *, seed: int, count: int) -> Iterator[bytes]:
    """Bodies made of lists of such objects, some of them alone."""
    chance = random.Random(seed)
    for _ in range(count):
        parts = [
            _body(dict(valid), chance) if chance.random() < 0.3 else encode(valid) for _ in range(chance.randint(0, 4))
        ]
        body = b"[" + b",".join(parts) + b"]" if chance.random() < 0.9 else b"".join(parts)
        yield _damaged(body, chance) if chance.random() < 0.3 else body


def broken_lines(valid: Mapping[str, object], *, seed: int, count: int) -> Iterator[bytes]:
    """Bodies made of one such object a line."""
    chance = random.Random(seed)
    for _ in range(count):
        parts = [
            _body(dict(valid), chance) if chance.random() < 0.3 else encode(valid) for _ in range(chance.randint(0, 4))
        ]
        body = (b"\r\n" if chance.random() < 0.2 else b"\n").join(parts)
        yield _damaged(body, chance) if chance.random() < 0.3 else body


def broken_bytes(valid: bytes, *, seed: int, count: int) -> Iterator[bytes]:
    """Bodies of any format, with bytes cut, flipped, put in or doubled."""
    chance = random.Random(seed)
    for _ in range(count):
        body = valid
        for _ in range(chance.randint(1, 3)):
            body = _damaged(body, chance)
        yield body


def encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _body(event: dict[str, object], chance: random.Random) -> bytes:
    for _ in range(chance.randint(0, 2)):
        chance.choice(_OF_OBJECTS)(event, chance)
    body = encode(event)
    for _ in range(chance.randint(0, 2)):
        body = _damaged(body, chance) if chance.random() < 0.7 else chance.choice(_OF_TEXTS)(body, chance)
    return body


def _swap(event: dict[str, object], chance: random.Random) -> None:
    if event:
        event[chance.choice(list(event))] = chance.choice(VALUES)


def _drop(event: dict[str, object], chance: random.Random) -> None:
    if event:
        del event[chance.choice(list(event))]


def _add(event: dict[str, object], chance: random.Random) -> None:
    event[chance.choice(("x", "", "__proto__", "amount ", "Order", "a" * 300, "\u0000"))] = chance.choice(VALUES)


def _rename(event: dict[str, object], chance: random.Random) -> None:
    if event:
        name = chance.choice(list(event))
        event[name + chance.choice(("x", " ", "\u200b"))] = event.pop(name)


def _nest(body: bytes, chance: random.Random) -> bytes:
    depth = chance.choice((1, 10, 500, 5_000))
    return chance.choice((b"[" * depth + body + b"]" * depth, b'{"a":' * depth + body + b"}" * depth))


def _twice(body: bytes, chance: random.Random) -> bytes:
    """A key of the object a second time."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(found, dict) or not found or not body.endswith(b"}"):
        return body
    name = chance.choice(list(found))
    return body[:-1] + b"," + encode(name) + b":" + encode(chance.choice((found[name], chance.choice(VALUES)))) + b"}"


def _other_root(body: bytes, chance: random.Random) -> bytes:
    return chance.choice(
        (b"", b"null", b"1", b'"a"', b"[]", b"{}", b"[" + body + b"]", body + body, b" " + body + b"\n")
    )


def _damaged(body: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(body))
    match chance.randrange(5):
        case 0:
            return body[:at]
        case 1:
            return body[:at] + chance.choice(TOKENS) + body[at:]
        case 2:
            return body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]
        case 3:
            return body[:at] + body[at + chance.randint(1, 8) :]
        case _:
            return body[:at] + body[at : at + chance.randint(1, 16)] + body[at:]


_OF_OBJECTS: tuple[Callable[[dict[str, object], random.Random], None], ...] = (
    _swap,
    _swap,
    _swap,
    _drop,
    _add,
    _rename,
)
_OF_TEXTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (_nest, _twice, _twice, _other_root)
