"""A store of artifacts in a folder: one file each, named by its content. Touches the file system.

The one idea: a file appears whole under its name or not at all: it is written and synced under another name first, then
renamed. Two processes that put the same artifact write the same bytes, so they need no lock.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headrace.core.errors import NotFoundError, SchemaError
from headrace.core.times import Instant
from headrace.models.artifact import Artifact, decode, encode
from headrace.models.port import ModelStore, Stored

_SUFFIX = ".model"
_ID = re.compile(r"[0-9a-f]{64}")


class FolderModelStore(ModelStore):
    """Files `<id>.model`; what else lies in the folder is left alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, artifact: Artifact) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._place(artifact.id)
        if place.exists():
            os.utime(place)
            return artifact.id
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(encode(artifact))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(place)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name is durable only with its folder
        finally:
            os.close(folder)
        return artifact.id

    def get(self, id: str) -> Artifact:
        if not _ID.fullmatch(id):
            raise NotFoundError(
                "HR-0611", f"{id!r} cannot be a model artifact", detail="expected 64 hexadecimal digits"
            )
        try:
            data = self._place(id).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(
                "HR-0611", f"no model artifact {id}", hint="headrace models list", folder=str(self._folder)
            ) from error
        artifact = decode(data)
        if artifact.id != id:
            raise SchemaError(
                "HR-0609",
                f"model artifact {id} is not what was stored",
                detail=f"its content is that of {artifact.id}",
                hint="restore the file from a backup, or train again",
            )
        return artifact

    def ids(self) -> frozenset[str]:
        """The artifacts that are there, unread: whether anything came since."""
        files = self._folder.glob(f"*{_SUFFIX}") if self._folder.is_dir() else ()
        return frozenset(file.stem for file in files if _ID.fullmatch(file.stem))

    def list(self) -> Sequence[Stored]:
        found = []
        for id in self.ids():
            artifact, held = self.get(id), self._place(id).stat()
            found.append(
                Stored(
                    id=artifact.id,
                    model=artifact.model,
                    fingerprint=artifact.fingerprint,
                    method=artifact.method,
                    training_set=artifact.training_set,
                    size_bytes=held.st_size,
                    stored_at=Instant(held.st_mtime_ns // 1_000),
                )
            )
        return sorted(found, key=lambda stored: (stored.model, stored.stored_at, stored.id))

    def _place(self, id: str) -> Path:
        return self._folder / f"{id}{_SUFFIX}"
