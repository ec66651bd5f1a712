"""Tokens: what the file holds, who is let in, and what becomes of damage."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from headrace.api.tokens import FILE, LOOK_MICROS, Scope, TokenStore, scopes_of
from headrace.core.errors import HeadraceError, InputError, NotFoundError, StateError, UsageError
from headrace.core.times import Instant

NOW = Instant(1_767_225_600_000_000)
HOUR = 3_600_000_000


def later(micros: int) -> Instant:
    return Instant(NOW + micros)


def bearer(text: str) -> bytes:
    return f"Bearer {text}".encode()


def test_the_file_holds_no_secret_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    token, text = TokenStore(tmp_path).create("shop", [Scope.DECIDE], now=NOW, expires=None)
    prefix, id, secret = text.split("_", 2)
    assert (prefix, id) == ("hr", token.id)
    assert len(secret) >= 43, "256 bits"
    held = (tmp_path / FILE).read_text()
    assert secret not in held
    assert id in held
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE, "tokens.lock"], "nothing is left over"


def test_a_token_is_checked_by_secret_scope_expiry_and_revocation(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    token, text = store.create("shop", [Scope.DECIDE, Scope.READ_FEATURES], now=NOW, expires=later(HOUR))
    _, other = store.create("other", [Scope.APPEND], now=NOW, expires=None)
    server = TokenStore(tmp_path)
    assert server.check(bearer(text), Scope.DECIDE, NOW) == token.id
    assert server.check(bearer(text), None, NOW) == token.id
    mixed = f"hr_{token.id}_{other.split('_', 2)[2]}"
    for wrong in (
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        bearer(mixed),
        bearer(text + "a"),
        b"bearer \xff",
        bearer("hr_x_y"),
    ):
        with pytest.raises(InputError) as refused:
            server.check(wrong, Scope.DECIDE, NOW)
        assert refused.value.code == "HR-1009"
        assert text not in str(refused.value)
    with pytest.raises(InputError, match="HR-1010"):
        server.check(bearer(text), Scope.APPEND, NOW)
    with pytest.raises(InputError, match="HR-1009"):
        server.check(bearer(text), Scope.DECIDE, later(HOUR))


def test_a_server_knows_of_a_change_within_a_second(tmp_path: Path) -> None:
    server, store = TokenStore(tmp_path), TokenStore(tmp_path)
    assert not server.required(NOW)
    token, text = store.create("shop", [Scope.DECIDE], now=NOW, expires=None)
    assert server.required(later(LOOK_MICROS))
    assert server.check(bearer(text), Scope.DECIDE, later(LOOK_MICROS)) == token.id
    assert [one.id for one in store.revoke("shop", now=NOW)] == [token.id]
    with pytest.raises(InputError, match="HR-1009"):
        server.check(bearer(text), Scope.DECIDE, later(2 * LOOK_MICROS))
    assert server.required(later(3 * LOOK_MICROS)), "a project that had a token is never open again"
    with pytest.raises(NotFoundError, match="HR-1015"):
        store.revoke(token.id, now=NOW)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 2, "tokens": []}', b"\xff"])
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, damage: bytes) -> None:
    store = TokenStore(tmp_path)
    _, text = store.create("shop", [Scope.DECIDE], now=NOW, expires=None)
    (tmp_path / FILE).write_bytes(damage)
    fresh = TokenStore(tmp_path)
    for at in range(3):
        with pytest.raises(StateError, match="HR-1014"):
            fresh.required(later(at))
        with pytest.raises(StateError, match="HR-1014"):
            fresh.check(bearer(text), None, later(at))


def test_a_server_goes_on_with_what_it_knew_where_the_file_vanishes(tmp_path: Path) -> None:
    server = TokenStore(tmp_path)
    _, text = server.create("shop", [Scope.DECIDE], now=NOW, expires=None)
    assert server.check(bearer(text), None, NOW)
    (tmp_path / FILE).unlink()
    assert server.check(bearer(text), None, later(2 * LOOK_MICROS))
    assert server.required(later(4 * LOOK_MICROS))


@pytest.mark.parametrize("text", ["", "decisions", "decisions:all", "decisions:decide,nope", ","])
def test_a_scope_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HR-1016"):
        scopes_of(text)


def test_scopes_are_kept_once_and_in_order() -> None:
    assert scopes_of("topics:append, decisions:decide,topics:append") == (Scope.APPEND, Scope.DECIDE)


@pytest.mark.parametrize("name", ["", "a" * 101, "a\nb"])
def test_a_name_that_cannot_be_printed_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(HeadraceError, match="HR-1016"):
        TokenStore(tmp_path).create(name, [Scope.DECIDE], now=NOW, expires=None)


def test_the_file_is_plain_json_of_a_version(tmp_path: Path) -> None:
    TokenStore(tmp_path).create("shop", [Scope.DECIDE], now=NOW, expires=None)
    held = json.loads((tmp_path / FILE).read_text())
    assert held["version"] == 1
    assert held["tokens"][0]["scopes"] == ["decisions:decide"]
