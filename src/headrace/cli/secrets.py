"""Secrets by reference: `file:PATH` or `env:NAME`, never the value itself, which others on the machine could read in
the list of processes. Touches: the environment, files."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.core.errors import UsageError


def secret(reference: str) -> str:
    """The text that a reference names, without white space at its ends. Raises: UsageError HR-1019, which names the
    reference and never the secret."""
    kind, name = parts_of(reference)
    if kind == "env":
        if name not in os.environ:
            raise UsageError("HR-1019", f"the variable {name} is not set", hint=f"{reference} reads it")
        return os.environ[name].strip()
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError("HR-1019", f"{reference} cannot be read", detail=str(reason)) from None


def parts_of(reference: str) -> tuple[str, str]:
    """ "file" or "env", and the name. Raises: UsageError HR-1019."""
    kind, _, name = reference.partition(":")
    if kind not in ("file", "env") or not name:
        raise UsageError(
            "HR-1019",
            "not a reference to a secret",
            detail="expected file:PATH or env:NAME; the value itself is never given",
        )
    return kind, name
