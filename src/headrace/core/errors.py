"""The error tree: one root, a class where a caller can act differently, else a code. Pure.

    HeadraceError
    ├── DefinitionError      a definition is wrong; found when the folder loads
    │   ├── LeakError        a late column is used before it can be known (HR-0201)
    │   └── MaturityError    a label is used before it has matured (HR-0202)
    ├── InputError           what a caller sent is wrong; refused whole (or quarantined, where the law says so)
    │   ├── SchemaError      a value does not fit its declared type
    │   └── ConflictError    a known id came with another payload
    ├── UsageError           the call itself cannot be right (CLI exit status 2)
    ├── NotFoundError        a named thing does not exist
    ├── LogError             the log cannot do it
    │   ├── LogFullError     no room: nothing of this append was taken (retryable)
    │   ├── LogCorruptError  bytes are not what was written
    │   ├── LogFormatError   written by a newer headrace
    │   ├── LogReadOnlyError the file cannot be written
    │   ├── NotOwnerError    another process owns the file, and could not be reached (retryable)
    │   ├── FencedError      another took this one's place; what it would do now is void
    │   └── HaltedError      one partition is not read on; the others are
    ├── StateError           a value cannot be given at this point (TOO_OLD, not ready)
    └── MissingExtraError    an optional dependency is not installed

Every code has a page in docs/errors/. The message is a short fact with kind and name; the detail shows seen against
expected; the hint is the next command or edit.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadraceError(Exception):
    """An error with a stable code and facts a caller can act on.

    code: "HR-" and four digits. message: a short fact. detail: seen against expected. hint: what to do next.
    retryable: the same call may succeed later, unchanged. facts: attributes of the error, also in `facts`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        detail: str = "",
        hint: str = "",
        retryable: bool = False,
        **facts: object,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail
        self.hint = hint
        self.retryable = retryable
        self.facts: dict[str, object] = facts

    def __getattr__(self, name: str) -> object:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(name)

    def __str__(self) -> str:
        lines = [f"{self.code} {self.message}"]
        if self.detail:
            lines.append(f"  {self.detail}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.message, self.detail, self.hint, self.retryable, self.facts)


def _rebuild(
    kind: type[HeadraceError],
    code: str,
    message: str,
    detail: str,
    hint: str,
    retryable: bool,
    facts: dict[str, object],
) -> HeadraceError:
    return kind(code, message, detail=detail, hint=hint, retryable=retryable, **facts)


class DefinitionError(HeadraceError):
    """A definition is wrong; raised when it is made or when the folder loads, never later."""


class LeakError(DefinitionError):
    """A late column is used before its truth can be known (SEMANTICS 4.4)."""


class MaturityError(DefinitionError):
    """A label is used before it has matured (SEMANTICS 4.4)."""


class InputError(HeadraceError):
    """What a caller sent is wrong; nothing of it was taken."""


class SchemaError(InputError):
    """A value, column or file does not fit its declared type."""


class ConflictError(InputError):
    """A known id came with another payload (SEMANTICS 5.3)."""


class UsageError(HeadraceError):
    """The call itself cannot be right."""


class NotFoundError(HeadraceError):
    """A named thing does not exist."""


class LogError(HeadraceError):
    """The log cannot do what was asked."""


class LogFullError(LogError):
    """No room on the disk: nothing of this append was taken."""


class LogCorruptError(LogError):
    """Bytes in the log are not what was written."""


class LogFormatError(LogError):
    """The file was written by a newer headrace."""


class LogReadOnlyError(LogError):
    """The file or its folder cannot be written."""


class NotOwnerError(LogError):
    """Another process owns the log and could not be reached."""


class FencedError(LogError):
    """Another process took this one's place: nothing of what was asked was done, and nothing more will be."""


class HaltedError(LogError):
    """A partition is read up to a row and not on, until somebody sets it right; all others go on. Facts: topic,
    partition (its index), offset (of that row)."""


class StateError(HeadraceError):
    """A value cannot be given at this point."""


class MissingExtraError(HeadraceError):
    """An optional dependency is not installed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known name, or lists what there is. Empty where nothing is known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there is: {', '.join(names[:20])}" if names else ""
