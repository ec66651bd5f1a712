"""headrace serve, and its drain."""

from __future__ import annotations

import getpass
import os
import ssl
import sys
import tempfile
import time
from pathlib import Path

import click

from headrace.cli.secrets import parts_of, secret
from headrace.core.errors import UsageError
from headrace.plugs import require
from headrace.runtime.project import STATE_FOLDER, open_project
from headrace.runtime.sampling import EVERY_SECONDS, SHARE


@click.group(invoke_without_command=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--tls-cert", metavar="REF", help="The certificate chain: file:PATH or env:NAME.")
@click.option("--tls-key", metavar="REF", help="Its private key: file:PATH or env:NAME.")
@click.option("--insecure-plaintext", is_flag=True, help="Allow a public address without TLS, behind a proxy.")
@click.option("--decision", "decisions", multiple=True, metavar="NAME", help="Serve only these; all by default.")
@click.option(
    "--sample",
    default=SHARE,
    show_default=True,
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Of the decisions, recomputed beside the server and compared; 0: none.",
)
@click.option(
    "--sample-seconds",
    default=EVERY_SECONDS,
    show_default=True,
    type=click.FloatRange(0.1),
    help="Between two looks of the sampler, at least.",
)
@click.option(
    "--checkpoint-seconds",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Between two checkpoints that are written beside the server, so that a takeover is short; 0: only at the end.",
)
@click.option("--access-log", is_flag=True, help="One line a request on stderr.")
@click.option(
    "--json-bytes-max", default=1_048_576, show_default=True, type=click.IntRange(1_024), help="Of a JSON body."
)
@click.option(
    "--bulk-bytes-max", default=16_777_216, show_default=True, type=click.IntRange(1_024), help="Of NDJSON and Arrow."
)
@click.option(
    "--head-seconds-max", default=10.0, show_default=True, type=click.FloatRange(0.1), help="For a request's head."
)
@click.option(
    "--body-seconds-max", default=30.0, show_default=True, type=click.FloatRange(0.1), help="For a whole request."
)
@click.pass_context
def serve(
    ctx: click.Context,
    host: str,
    port: int,
    tls_cert: str | None,
    tls_key: str | None,
    insecure_plaintext: bool,
    decisions: tuple[str, ...],
    sample: float,
    sample_seconds: float,
    checkpoint_seconds: float,
    access_log: bool,
    json_bytes_max: int,
    bulk_bytes_max: int,
    head_seconds_max: float,
    body_seconds_max: float,
) -> None:
    """Serve decisions, features and events over HTTP until SIGTERM or SIGINT.

    Prints its address on stdout once it listens; logs are JSON lines on stderr.
    """
    if ctx.invoked_subcommand is not None:
        return
    for package in ("uvicorn", "httptools", "aiohttp", "prometheus_client"):
        require(package, wanted_by="headrace serve")
    from headrace.api import address, audit, logs, server  # uvicorn and what it brings: 150 ms
    from headrace.api.settings import Settings
    from headrace.api.tokens import TokenStore

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("HR-1013", "--tls-cert and --tls-key belong together", hint="give both, or neither")
    tls = None if tls_cert is None or tls_key is None else _tls(tls_cert, tls_key)
    logs.to_stream(sys.stderr)
    settings = Settings(
        json_bytes_max=json_bytes_max,
        bulk_bytes_max=bulk_bytes_max,
        head_seconds_max=head_seconds_max,
        body_seconds_max=body_seconds_max,
        sample_share=sample,
        sample_seconds=sample_seconds,
        checkpoint_seconds=checkpoint_seconds,
    )
    project = open_project(ctx.obj)
    tokens = TokenStore(project.state_folder)
    try:
        server.check_bind(host, tokens=tokens, tls=tls is not None, insecure=insecure_plaintext, now=project.now())
        listener = server.listen(host, port)
    except UsageError:
        project.close()
        raise
    with listener, address.announcing(project.state_folder) as announced:

        def announce(where: str) -> None:
            announced.say(where)
            click.echo(where)

        if not server.is_loopback(host):
            where = f"{host}:{listener.getsockname()[1]}"
            detail = "tls" if tls is not None else "plaintext"
            actor = getpass.getuser()
            audit.record(
                project.log, at=project.now(), actor=actor, action="server opened", subject=where, detail=detail
            )
        server.serve(
            project,
            listener=listener,
            tokens=tokens,
            tls=tls,
            settings=settings,
            access_log=access_log,
            decisions=decisions or None,
            announce=announce,
        )


@serve.command()
@click.option(
    "--url", metavar="URL", help="The server there; by default this project's on this machine, the last begun."
)
@click.option("--token", metavar="REF", help="With the scope servers:drain: file:PATH or env:NAME.")
@click.option(
    "--within",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait until others have everything.",
)
@click.pass_obj
def drain(folder: str, url: str | None, token: str | None, within: float) -> None:
    """Have others take over all that a server decides and holds, before it is ended by SIGTERM: no request is left
    without an answer meanwhile. On Kafka, where several servers share a log.

    The server is not ready from then on, decides what nobody has taken yet, and sends on what others have. There is no
    way back but its next start. Exit 1 where nobody took over in time: it goes on deciding then.
    """
    from headrace.api import address, draining  # urllib's HTTP: 40 ms

    asked = url or address.announced(Path(folder) / STATE_FOLDER)
    if asked is None:
        raise UsageError("HR-1022", "there is no server of this project on this machine", hint="--url says where it is")
    began = time.monotonic()
    draining.drain_server(asked, None if token is None else secret(token), within=within)
    click.echo(f"{asked} is drained: others took over within {time.monotonic() - began:.1f} s", err=True)


def _tls(cert: str, key: str) -> ssl.SSLContext:
    """From references. Raises: UsageError HR-1019, which names the reference and never the secret."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory() as private:  # mode 0700; OpenSSL reads files only
        try:
            context.load_cert_chain(
                _file(cert, Path(private) / "cert"), _file(key, Path(private) / "key"), password=lambda: b""
            )
        except (OSError, ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "cannot be used"
            raise UsageError("HR-1019", f"no TLS from {cert} and {key}", detail=str(reason)) from None
    return context


def _file(reference: str, place: Path) -> Path:
    """The file that a reference names; of a variable one that is made and goes at once."""
    kind, name = parts_of(reference)
    if kind == "file":
        return Path(name)
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secret(reference))
    return place
