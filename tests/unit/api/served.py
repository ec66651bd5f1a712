"""A small project behind the application, called as an ASGI server calls it: no socket, a loop of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.api.app import Application
from headrace.api.metrics import Metrics
from headrace.api.service import Service
from headrace.api.settings import Settings
from headrace.api.tokens import TokenStore
from headrace.clock import SystemClock
from headrace.runtime.project import Project, open_project
from tests.e2e.shop import DEFINITIONS, make

JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self, status: int, code: str, field: str | None = None) -> Any:
        """The problem details, which must be these."""
        assert self.headers["content-type"] == "application/problem+json", self
        said = self.json
        assert (self.status, said["status"], said["code"]) == (status, status, code), said
        assert said["type"] == f"/docs/errors/{code}"
        assert said["title"]
        if field is not None:
            assert said.get("field") == field, said
        return said


class Served:
    """Open it with `with`; `call` as a client would."""

    def __init__(
        self,
        folder: Path,
        *,
        definitions: str = DEFINITIONS,
        settings: Settings | None = None,
        access_log: bool = False,
    ) -> None:
        self.folder = make(folder, definitions)
        self._settings = settings or Settings()
        self._access_log = access_log

    def __enter__(self) -> Served:
        self.runner = asyncio.Runner()
        self.runner.__enter__()
        self.project: Project = open_project(self.folder)
        self.project.apply()
        self.tokens = TokenStore(self.project.state_folder)
        self.metrics = Metrics()
        self.service = self.runner.run(self._make())
        self.app = Application(self.service, self.tokens, clock=SystemClock(), access_log=self._access_log)
        return self

    async def _make(self) -> Service:
        return Service(self.project, settings=self._settings, metrics=self.metrics)

    def __exit__(self, *_: object) -> None:
        self.service.close()
        self.project.close()
        self.runner.__exit__(None, None, None)

    def call(
        self,
        method: str,
        path: str,
        body: object = b"",
        headers: Mapping[str, str] | None = None,
        *,
        chunks: Sequence[bytes] | None = None,
    ) -> Answer:
        """body: bytes, or what is sent as JSON. chunks: sent one by one instead."""
        return self.runner.run(self.answer(method, path, body, headers, chunks=chunks))

    async def answer(
        self,
        method: str,
        path: str,
        body: object = b"",
        headers: Mapping[str, str] | None = None,
        *,
        chunks: Sequence[bytes] | None = None,
    ) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"host": "localhost:8000", **(JSON if method == "POST" else {}), **(headers or {})}
        place, _, query = path.partition("?")
        scope: dict[str, object] = {
            "type": "http",
            "method": method,
            "path": place,
            "raw_path": place.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        }
        waiting = list(chunks if chunks is not None else [raw])
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, object]:
            if not waiting:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return Answer(0, {}, b"")
        start, *rest = sent
        headers_out = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], headers_out, b"".join(part["body"] for part in rest))

    def ends(self) -> dict[str, int]:
        """Rows of each topic: what was taken."""
        return {s.topic.name: sum(p.end for p in s.partitions) for s in self.project.log.topics()}
