"""Checkpoints in a bucket of S3, or of what speaks like it. Touches the network, through `clients.s3`.

The one idea: each file is an object `<prefix>/<name>/<file>`, put only where its key is free, the manifest last. So a
checkpoint is there when its manifest is; a second writer of a name meets the first one's objects and is told before it
can mix anything; and removing begins with the manifest, so that what is half removed is there no more.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

from headrace.clients.s3 import PIECE_BYTES, S3Bucket, S3Settings, overwrites
from headrace.core.errors import StateError
from headrace.features.checkpoint_folder import missing
from headrace.features.checkpoint_store import MANIFEST, CheckpointStore, Part


class S3Checkpoints(CheckpointStore):
    """Objects below a prefix of a bucket; what else lies there is left alone."""

    shared = True

    def __init__(self, settings: S3Settings, prefix: str = "", *, piece_bytes: int = PIECE_BYTES) -> None:
        """prefix: without slashes at its ends. Raises: MissingExtraError HR-0990, StateError HR-0564."""
        self.place = f"s3://{settings.bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = S3Bucket(settings, wanted_by="checkpoint store 's3'", piece_bytes=piece_bytes)

    def check(self) -> None:
        key = f"{self._prefix}check~{secrets.token_hex(8)}"
        self._bucket.put(key, [b"headrace"])
        kept = not self._bucket.put(key, [b"overwritten"])
        self._bucket.remove([key])
        if not kept:
            raise overwrites(self.place, "it overwrote an object that was there, in spite of If-None-Match")

    def names(self, prefix: str) -> Sequence[str]:
        return sorted(name for name, files in self._found(prefix).items() if MANIFEST in files)

    def unfinished(self, prefix: str) -> Sequence[str]:
        found = self._found(prefix)
        begun = {self._split(upload.key)[0] for upload in self._bucket.uploads(self._prefix + prefix)}
        return sorted(name for name in found.keys() | begun if MANIFEST not in found.get(name, ()))

    def put(self, name: str, files: Iterable[Part]) -> None:
        last = ""
        for last, parts in files:
            if not self._bucket.put(self._key(name, last), parts):
                raise StateError(
                    "HR-0566", f"checkpoint {name} is in {self.place} already", hint="it is never overwritten"
                )
        assert last == MANIFEST, "the manifest is what makes a checkpoint be there"

    def get(self, name: str, file: str) -> bytes:
        found = self._bucket.get(self._key(name, file))
        if found is None:
            raise missing(self.place, name, file)
        return found

    def remove(self, name: str) -> None:
        self._bucket.remove([self._key(name, MANIFEST)])
        for upload in self._bucket.uploads(f"{self._prefix}{name}/"):
            self._bucket.abort(upload)
        self._bucket.remove([one.key for one in self._bucket.list(f"{self._prefix}{name}/")])

    def close(self) -> None:
        self._bucket.close()

    def _key(self, name: str, file: str) -> str:
        return f"{self._prefix}{name}/{file}"

    def _split(self, key: str) -> tuple[str, str]:
        name, _, file = key.removeprefix(self._prefix).partition("/")
        return name, file

    def _found(self, prefix: str) -> dict[str, set[str]]:
        """Names that begin so, with their files."""
        found: dict[str, set[str]] = {}
        for one in self._bucket.list(self._prefix + prefix):
            name, file = self._split(one.key)
            if file and "/" not in file:
                found.setdefault(name, set()).add(file)
        return found
