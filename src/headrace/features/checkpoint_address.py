"""Where checkpoints lie, said in one URL, and the store that it means. Parsing is pure;
`open_store` touches what it opens.

    file:///var/lib/headrace/checkpoints                     a folder, of this machine or shared (NFS)
    s3://risk-checkpoints/live                               a bucket, and what the keys begin with
    s3://risk-checkpoints/live?endpoint=http://10.0.0.5:9000 a server of one's own
    s3://risk-checkpoints/live?region=eu-central-1&profile=risk

Who asks is never in the URL: it is found in the environment, a profile, or the machine's role.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.clients.s3 import S3Settings
from headrace.core.errors import UsageError, did_you_mean
from headrace.features.checkpoint_folder import FolderCheckpoints
from headrace.features.checkpoint_s3 import S3Checkpoints
from headrace.features.checkpoint_store import CheckpointStore

_SCHEMES = ("file", "s3")
_OPTIONS = ("endpoint", "profile", "region")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderAddress:
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Address:
    """prefix: without slashes at its ends; "" is the whole bucket."""

    settings: S3Settings
    prefix: str = ""


Address = FolderAddress | S3Address


def parse(url: str) -> Address:
    """Raises: UsageError HR-0560 for what is no such URL, or holds a password."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _wrong("it is no URL", str(error)) from error
    if parts.scheme not in _SCHEMES:
        raise _wrong(f"scheme {parts.scheme!r}", f"expected file:///FOLDER or s3://BUCKET/PREFIX, seen {_shown(url)}")
    if parts.fragment:
        raise _wrong("it has a fragment", f"leave out #{parts.fragment}")
    if parts.scheme == "file":
        return _folder(parts.netloc, unquote(parts.path), parts.query)
    return _bucket(parts.netloc, unquote(parts.path).strip("/"), parts.query)


def open_store(url: str) -> CheckpointStore:
    """The store at an address; `check` then says whether it can be written.

    Raises: UsageError HR-0560, MissingExtraError HR-0990, StateError HR-0564 (no such profile).
    """
    address = parse(url)
    if isinstance(address, FolderAddress):
        return FolderCheckpoints(address.folder, shared=True)
    return S3Checkpoints(address.settings, address.prefix)


def _folder(host: str, path: str, query: str) -> FolderAddress:
    if host not in ("", "localhost"):
        raise _wrong(f"a folder of host {host!r}", "expected three slashes, as in file:///shared/checkpoints")
    if query:
        raise _wrong("a folder takes no options", f"leave out ?{query}")
    if not path.strip("/"):
        raise _wrong("it names no folder", "expected one that is for checkpoints alone")
    return FolderAddress(folder=Path(path))


def _bucket(host: str, prefix: str, query: str) -> S3Address:
    if "@" in host:
        raise _wrong("it says who asks", "take it out: the environment, a profile or the machine's role says so")
    if not _BUCKET.match(host):
        raise _wrong(f"{host!r} is no bucket's name", "expected 3 to 63 of lower case letters, digits, '.', '-'")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name not in _OPTIONS:
            raise _wrong(f"unknown option {name!r}", did_you_mean(name, _OPTIONS))
        if not value:
            raise _wrong(f"option {name!r} is empty", "say it, or leave it out")
    endpoint = options.get("endpoint", "")
    if endpoint:
        _check_endpoint(endpoint)
    settings = S3Settings(
        bucket=host, region=options.get("region", ""), endpoint=endpoint, profile=options.get("profile", "")
    )
    return S3Address(settings=settings, prefix=prefix)


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        right = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:
        right = False
    if not right:
        raise _wrong(f"endpoint {_shown(endpoint)!r}", "expected http://HOST:PORT or https://HOST")


def _shown(url: str) -> str:
    """Without what may be a password."""
    return re.sub(r"//[^@/]*@", "//...@", url[:200])


def _wrong(what: str, detail: str) -> UsageError:
    return UsageError(
        "HR-0560",
        f"the address of checkpoints: {what}",
        detail=detail,
        hint="docs/errors/HR-0560.md has examples",
    )
