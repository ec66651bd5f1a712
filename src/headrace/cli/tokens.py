"""headrace tokens: create, list, revoke. Each change is an event of the audit topic."""

from __future__ import annotations

import getpass

import click

from headrace.api import audit
from headrace.api.tokens import Token, TokenStore, scopes_of
from headrace.cli.output import emit_json, emit_table, output_option
from headrace.core.times import Duration, Instant, iso
from headrace.runtime.project import open_project


@click.group()
def tokens() -> None:
    """Who may call the server: make, list and revoke tokens."""


@tokens.command()
@click.option("--name", required=True, help="Who will hold it.")
@click.option("--scope", required=True, metavar="NOUN:VERB[,...]", help="What it allows, as in decisions:decide.")
@click.option("--expires", default="90d", show_default=True, help="How long it is valid, or 'never'.")
@output_option
@click.pass_obj
def create(folder: str, name: str, scope: str, expires: str, output: str) -> None:
    """Make a token and show it, once: only its hash is kept."""
    scopes = scopes_of(scope)
    life = None if expires == "never" else Duration.parse(expires)
    with open_project(folder) as project:
        now = project.now()
        until = None if life is None else Instant(now + life.micros)
        token, text = TokenStore(project.state_folder).create(name, scopes, now=now, expires=until)
        audit.record(
            project.log,
            at=now,
            actor=getpass.getuser(),
            action="token created",
            subject=token.id,
            detail=f"{name}: {', '.join(token.scopes)}, until {'revoked' if until is None else iso(until)}",
        )
    if output == "json":
        emit_json({**_shown(token, now), "token": text})
    else:
        click.echo(text)
        click.echo(f"token {token.id} for {name}; it is not shown again", err=True)


@tokens.command("list")
@output_option
@click.pass_obj
def list_tokens(folder: str, output: str) -> None:
    """Every token that was made, without its secret."""
    with open_project(folder) as project:
        now = project.now()
        rows = [_shown(token, now) for token in TokenStore(project.state_folder).list()]
    if output == "json":
        emit_json(rows)
    else:
        emit_table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])


@tokens.command()
@click.argument("token")
@output_option
@click.pass_obj
def revoke(folder: str, token: str, output: str) -> None:
    """Refuse a TOKEN (its id, or a name: all of that name) from now on. Servers know within a second."""
    with open_project(folder) as project:
        now = project.now()
        revoked = TokenStore(project.state_folder).revoke(token, now=now)
        for one in revoked:
            audit.record(
                project.log, at=now, actor=getpass.getuser(), action="token revoked", subject=one.id, detail=one.name
            )
    if output == "json":
        emit_json([one.id for one in revoked])
    else:
        click.echo(f"revoked {', '.join(one.id for one in revoked)}", err=True)


_COLUMNS = ("id", "name", "scopes", "state", "created", "expires")


def _shown(token: Token, now: Instant) -> dict[str, object]:
    state = "revoked" if token.revoked is not None else "valid" if token.live(now) else "expired"
    return {
        "id": token.id,
        "name": token.name,
        "scopes": list(token.scopes),
        "state": state,
        "created": iso(Instant(token.created)),
        "expires": None if token.expires is None else iso(Instant(token.expires)),
    }
