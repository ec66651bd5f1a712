"""Bearer tokens: who may call, for what, until when. Touches: `.headrace/tokens.json`, the system's randomness.

The one idea: the file holds no secret. A token is `hr_<id>_<secret>` with 256 random bits, shown once; the file keeps
the secret's SHA-256, which of so many random bits needs no salt and no slow hash. The id finds the entry, the hash is
compared in constant time. A revoked token stays in the file: a project that ever had a token is never open again.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.core.errors import InputError, NotFoundError, StateError, UsageError
from headrace.core.times import Instant
from headrace.locked import locked

FILE = "tokens.json"
LOOK_MICROS = 1_000_000  # between two looks whether the file changed: how long a revoked token may still be taken
_VERSION = 1


class Scope(enum.Enum):
    """What a token allows, noun and verb."""

    DECIDE = "decisions:decide"
    READ_DECISIONS = "decisions:read"
    READ_FEATURES = "features:read"
    APPEND = "topics:append"
    READ_METRICS = "metrics:read"
    DRAIN = "servers:drain"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. Instants in microseconds; expires None: never."""

    id: str
    name: str
    scopes: tuple[str, ...]
    sha256: str
    created: int
    expires: int | None = None
    revoked: int | None = None

    def live(self, now: int) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    tokens: tuple[Token, ...]


def scopes_of(text: str) -> tuple[Scope, ...]:
    """From "decisions:decide,features:read". Raises: UsageError HR-1016."""
    known = {scope.value: scope for scope in Scope}
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in asked if part not in known]
    if unknown or not asked:
        raise UsageError(
            "HR-1016", f"not a scope: {unknown[0] if unknown else text!r}", detail=f"there is: {', '.join(known)}"
        )
    return tuple(known[part] for part in dict.fromkeys(asked))


class TokenStore:
    """The tokens of a project. Any process may change them, one at a time; a server follows the file."""

    def __init__(self, folder: Path) -> None:
        """folder: the project's state folder."""
        self._path = folder / FILE
        self._looked = -LOOK_MICROS
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def list(self) -> tuple[Token, ...]:
        """All that were ever made, in order. Raises: StateError HR-1014 for a damaged file."""
        if not self._path.exists():
            return ()
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
            raise self._damaged(str(error)) from error
        if found.version != _VERSION:
            raise self._damaged(f"version {found.version}, expected {_VERSION}")
        return found.tokens

    def create(self, name: str, scopes: Sequence[Scope], *, now: Instant, expires: Instant | None) -> tuple[Token, str]:
        """A new token, and the text to hand over, which cannot be had again. Raises: UsageError HR-1016."""
        if not name or len(name) > 100 or not name.isprintable():
            raise UsageError(
                "HR-1016", f"{name!r} cannot name a token", detail="expected 1 to 100 printable characters"
            )
        secret = secrets.token_urlsafe(32)
        token = Token(
            id=secrets.token_hex(6),
            name=name,
            scopes=tuple(scope.value for scope in scopes),
            sha256=_hash(secret),
            created=now,
            expires=expires,
        )
        with locked(self._path.with_suffix(".lock")):
            self._write((*self.list(), token))
        return token, f"hr_{token.id}_{secret}"

    def revoke(self, which: str, *, now: Instant) -> tuple[Token, ...]:
        """Refuse a token from now on, by its id, or all live ones of a name. Raises: NotFoundError HR-1015."""
        with locked(self._path.with_suffix(".lock")):
            held = self.list()
            chosen = {t.id for t in held if t.revoked is None and which in (t.id, t.name)}
            if not chosen:
                raise NotFoundError(
                    "HR-1015", f"no token {which!r} that is not revoked already", hint="headrace tokens list"
                )
            self._write([msgspec.structs.replace(t, revoked=now) if t.id in chosen else t for t in held])
        return tuple(t for t in held if t.id in chosen)

    # --- the server's side ---

    def required(self, now: Instant) -> bool:
        """Whether calls need a token: as soon as there ever was one."""
        self._follow(now)
        return bool(self._tokens)

    def check(self, authorization: bytes | None, scope: Scope | None, now: Instant) -> str:
        """The id of the token that a call came with. scope: None where any valid token will do.

        Raises: InputError HR-1009 (none, unknown, expired, revoked: not said which), HR-1010 (of another scope).
        """
        self._follow(now)
        scheme, _, text = (authorization or b"").partition(b" ")
        parts = text.strip().decode("ascii", errors="replace").split("_", 2)
        token = None
        if scheme.lower() == b"bearer" and len(parts) == 3 and parts[0] == "hr":
            token = self._tokens.get(parts[1])
        matches = hmac.compare_digest(_hash(parts[-1]), _NO_HASH if token is None else token.sha256)
        if token is None or not matches or not token.live(now):
            raise InputError(
                "HR-1009",
                "no valid token",
                detail="expected the header `Authorization: Bearer hr_...` with a token that is neither expired nor "
                "revoked",
                hint="headrace tokens create",
            )
        if scope is not None and scope.value not in token.scopes:
            raise InputError(
                "HR-1010",
                f"the token does not allow {scope.value}",
                detail=f"it allows {', '.join(token.scopes)}",
                hint="headrace tokens create",
                scope=scope.value,
            )
        return token.id

    def _follow(self, now: Instant) -> None:
        """Read the file again where it changed; of a file that vanished, what was known holds."""
        if 0 <= now - self._looked < LOOK_MICROS:
            return
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._looked = now
            return
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._stamp:
            self._tokens = {token.id: token for token in self.list()}
            self._stamp = stamp
        self._looked = now  # last: while the file cannot be read, nobody is let in

    # --- the file ---

    def _write(self, tokens: Sequence[Token]) -> None:
        """Whole or not at all, and never readable to others, not for a moment."""
        body = msgspec.json.format(msgspec.json.encode(_File(version=_VERSION, tokens=tuple(tokens))), indent=2)
        descriptor, name = tempfile.mkstemp(prefix=".tokens", dir=self._path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body + b"\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _damaged(self, why: str) -> StateError:
        return StateError(
            "HR-1014",
            f"{self._path.name} cannot be read",
            detail=why,
            hint="put it back from a backup, or delete it and make new tokens",
        )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


_NO_HASH = _hash("")
