"""The ASGI application: routes, tokens, limits, answers. No framework: a decision's way through it is some 20 us.

The one idea: every call ends in one place, with an answer whose status says whose fault it was: 4xx with problem
details where another call would do, 503 with Retry-After where another time would, and 500 only for faults of ours.
Touches: the event loop, the log of the process.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from headrace.api import answers, bodies, openapi, problems
from headrace.api.forwarded import MARK, Forward, Forwarded
from headrace.api.service import ARROW, JSON, NDJSON, Service, path_key
from headrace.api.tokens import Scope, TokenStore
from headrace.api.trace import Trace, trace_of
from headrace.api.views import answers_text, questions_of, readings_of
from headrace.core.errors import HeadraceError, InputError, NotFoundError, StateError
from headrace.core.times import Clock

Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[bytes, bytes]

_JSON = b"application/json"
BUDGET_MS_MAX = 60_000
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1", ""})

_logger = logging.getLogger(__name__)
_access = logging.getLogger("headrace.access")


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    status: int
    body: bytes
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(slots=True)
class Call:
    """One request as its handlers see it. token: the id of the one it came with, "" where none is asked for."""

    method: str
    segments: tuple[str, ...]
    query: bytes
    headers: Headers
    receive: Receive
    route: str = "unknown"
    token: str = ""


class DisconnectedError(Exception):
    """The caller left before its request was complete: there is nobody to answer."""


Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """open: no token is asked for. scope None: any valid token."""

    name: str
    scope: Scope | None
    handler: Handler
    open: bool = False


class Application:
    """A service behind HTTP. access_log: one line a request."""

    def __init__(self, service: Service, tokens: TokenStore, *, clock: Clock, access_log: bool = False) -> None:
        self.service = service
        self._tokens = tokens
        self._clock = clock
        self._access_log = access_log
        self._buffered = 0
        self._known_paths: dict[bytes, tuple[str, ...]] = {}  # of the decisions that are served
        self._document: tuple[object, bytes] | None = None  # of which project
        decide = Route(name="decide", scope=Scope.DECIDE, handler=self._decide)
        decision = Route(name="decision", scope=Scope.READ_DECISIONS, handler=self._decision)
        many = Route(name="features_batch", scope=Scope.READ_FEATURES, handler=self._features_batch)
        one = Route(name="features", scope=Scope.READ_FEATURES, handler=self._features)
        append = Route(name="append", scope=Scope.APPEND, handler=self._append)
        self._decisions = {"POST": decide, "GET": decision}
        self._views = {"POST": many, "GET": one}
        self._topics = {"POST": append}
        self._plain: dict[tuple[str, ...], dict[str, Route]] = {
            ("healthz",): {"GET": Route(name="healthz", scope=None, handler=self._healthz, open=True)},
            ("readyz",): {"GET": Route(name="readyz", scope=None, handler=self._readyz, open=True)},
            ("metrics",): {"GET": Route(name="metrics", scope=Scope.READ_METRICS, handler=self._metrics)},
            ("v1", "drain"): {
                "POST": Route(name="drain", scope=Scope.DRAIN, handler=self._drain),
                "GET": Route(name="drain", scope=Scope.DRAIN, handler=self._drained),
            },
            ("v1", "held"): {"POST": Route(name="held", scope=Scope.DECIDE, handler=self._held)},
            ("v1", "held", "read"): {"POST": Route(name="held", scope=Scope.READ_FEATURES, handler=self._held_read)},
            ("openapi.json",): {"GET": Route(name="openapi", scope=None, handler=self._openapi)},
        }

    async def __call__(self, scope: MutableMapping[str, object], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.monotonic()
        headers: Headers = dict(scope["headers"])  # type: ignore[call-overload]  # a list of pairs of bytes
        method = str(scope["method"])
        call = Call("GET" if method == "HEAD" else method, (), bytes(scope["query_string"]), headers, receive)  # type: ignore[call-overload]  # bytes
        trace = trace_of(headers.get(b"traceparent"))
        try:
            reply = await self._answer(scope, call)
        except DisconnectedError:
            return
        except HeadraceError as error:
            reply = self.refusal(error, call.route)
        except Exception as error:
            _logger.exception("%s failed", call.route)
            reply = self.refusal(fault(error, call.route), call.route)
        out = fields_of(reply, trace)
        await send({"type": "http.response.start", "status": reply.status, "headers": out})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else reply.body})
        seconds = time.monotonic() - began
        self.service.metrics.answered(call.route, reply.status, seconds)
        if self._access_log:
            self._log(call, method, reply, seconds, trace)

    async def _answer(self, scope: MutableMapping[str, object], call: Call) -> Reply:
        raw = scope.get("raw_path") or str(scope["path"]).encode()
        assert isinstance(raw, bytes), "ASGI's raw_path"
        segments = self._known_paths.get(raw)
        if segments is None:
            segments = _segments(raw)
            if raw == b"/v1/decisions/" + segments[-1].encode() and segments[-1] in self.service.lanes:
                self._known_paths[raw] = segments
        call.segments = segments
        routes = self._routes(call.segments)
        route = routes.get(call.method)
        if route is None:
            raise InputError(
                "HR-1002",
                f"{call.method[:20]} is not allowed here",
                detail=f"expected {' or '.join(sorted(routes))}",
                allow=", ".join(sorted({*routes, *(["HEAD"] if "GET" in routes else [])})),
            )
        call.route = route.name
        if not route.open:
            call.token = self.admit(call.headers, route.scope)
        return await route.handler(call)

    def _routes(self, segments: tuple[str, ...]) -> Mapping[str, Route]:
        match segments:
            case ("v1", "decisions", _):
                return self._decisions
            case ("v1", "decisions", _, _, _, _):
                return {"GET": self._decisions["GET"]}
            case ("v1", "features", _):
                return {"POST": self._views["POST"]}
            case ("v1", "features", _, _, *_):
                return {"GET": self._views["GET"]}
            case ("v1", "topics", _, "events"):
                return self._topics
        found = self._plain.get(segments)
        if found is None:
            raise NotFoundError("HR-1001", "no such address", hint="GET /openapi.json says what there is")
        return found

    def admit(self, headers: Headers, scope: Scope | None) -> str:
        """The id of the token that a call came with; "" where none is asked for. scope: None where any valid token will
        do. Raises: InputError HR-1009, HR-1010, HR-1017."""
        now = self._clock.now()
        if self._tokens.required(now):
            return self._tokens.check(headers.get(b"authorization"), scope, now)
        # Open, and so on loopback only: a page in this machine's browser may reach it under a name of its own.
        if not _is_local(headers.get(b"host", b"")):
            raise InputError(
                "HR-1017", "this server answers to localhost only", hint="make a token: headrace tokens create"
            )
        return ""

    def refusal(self, error: HeadraceError, route: str) -> Reply:
        """What a caller is told of an error, which is counted or said in the process's log where it is ours."""
        problem = problems.problem_of(error)
        more: list[tuple[bytes, bytes]] = []
        match problem.status:
            case 401:
                more.append((b"www-authenticate", b'Bearer realm="headrace"'))
            case 405:
                more.append((b"allow", str(error.facts.get("allow", "")).encode()))
            case 503:
                more.append((b"retry-after", b"1"))
                if error.code == "HR-1008":
                    self.service.metrics.overloaded(route)
                elif error.code not in _PASSING:
                    _logger.error("%s: %s", route, error, extra={"code": error.code})
            case 500:
                _logger.error("%s: %s", route, error, extra={"code": error.code})
        return Reply(problem.status, problems.encode(problem), problems.CONTENT_TYPE, tuple(more))

    def _log(self, call: Call, method: str, reply: Reply, seconds: float, trace: Trace | None) -> None:
        """No path and no query: they hold keys of people."""
        facts: dict[str, object] = {
            "method": method[:20],
            "route": call.route,
            "status": reply.status,
            "milliseconds": round(seconds * 1e3, 3),
            "token": call.token,
        }
        if trace is not None:
            facts |= {"trace_id": trace.trace, "span_id": trace.span, "parent_id": trace.parent}
        _access.info("answered", extra=facts)

    # --- decisions ---

    async def _decide(self, call: Call) -> Reply:
        name = call.segments[2]
        self.service.lane(name)  # that there is one is asked first
        _content_type(call.headers, (JSON,))
        asked = _query(call.query, ("features", "language"))
        features = _flag(asked, "features")
        body = await self._body(call, self.service.settings.json_bytes_max)
        return await self.decided(name, call.headers, body, features=features, language=asked.get("language"))

    async def decided(
        self, name: str, headers: Headers, body: bytes, *, features: bool = False, language: str | None = None
    ) -> Reply:
        """The answer to a request of a decision. Raises: InputError HR-1005 to HR-1007, and what deciding raises."""
        lane = self.service.lane(name)
        budget = _budget(headers.get(b"headrace-budget-ms"))
        request = bodies.object_of(body)
        key = headers.get(b"idempotency-key")
        if key is not None:
            _check_key(key, lane.decides.version.decision.request.id or "", request)
        accepted = headers.get(b"accept-language")
        found = await self.service.decide(
            name,
            request,
            budget=budget,
            features=features,
            language=language,
            accepted=accepted,
            caller=headers.get(b"authorization", b""),
            forward=self._forward(name, headers, body, features=features, language=language),
        )
        if isinstance(found, Forwarded):
            return Reply(found.status, found.body, found.content_type, found.headers)
        return reply_of(found)

    def _forward(
        self, name: str, headers: Headers, body: bytes, *, features: bool, language: str | None
    ) -> Forward | None:
        """The request as it came, where another process may own its partition; one that was sent on stays here."""
        if self.service.ownership is None or MARK in headers:
            return None
        return Forward(_path(name, features, language), headers, body)

    async def _decision(self, call: Call) -> Reply:
        asked = _query(call.query, ("features", "language"))
        found = await self.service.decision(
            "/".join(call.segments[2:]),
            features=_flag(asked, "features"),
            language=asked.get("language"),
            accepted=call.headers.get(b"accept-language"),
        )
        return reply_of(found)

    # --- features and events ---

    async def _features_batch(self, call: Call) -> Reply:
        settings = self.service.settings
        self.service.project.definitions.view(call.segments[2])
        _content_type(call.headers, (JSON,))
        asked = bodies.keys_of(await self._body(call, settings.json_bytes_max), settings.keys_max)
        caller = call.headers.get(b"authorization", b"")
        found = await self.service.features(call.segments[2], asked.keys, asked.t, caller=caller)
        return reply_of(found)

    async def _features(self, call: Call) -> Reply:
        view = self.service.project.definitions.view(call.segments[2])
        asked = _query(call.query, ("t",))
        caller = call.headers.get(b"authorization", b"")
        key = path_key(view, call.segments[3:])
        found = await self.service.features(view.name, [key], asked.get("t"), caller=caller)
        return reply_of(found)

    async def _held(self, call: Call) -> Reply:
        """Of other processes, and no part of the document."""
        _content_type(call.headers, (JSON,))
        questions = questions_of(await self._body(call, self.service.settings.json_bytes_max))
        return Reply(200, answers_text(await self.service.held(questions)))

    async def _held_read(self, call: Call) -> Reply:
        """As `_held`, of plain reads."""
        _content_type(call.headers, (JSON,))
        questions = readings_of(await self._body(call, self.service.settings.json_bytes_max))
        return Reply(200, answers_text(await self.service.held(questions)))

    async def _append(self, call: Call) -> Reply:
        settings = self.service.settings
        given = _content_type(call.headers, (JSON, NDJSON, ARROW))
        body = await self._body(call, settings.json_bytes_max if given == JSON else settings.bulk_bytes_max)
        return reply_of(await self.service.append(call.segments[2], body, given))

    # --- operations ---

    async def _healthz(self, call: Call) -> Reply:
        return Reply(200, b'{"status":"ok"}')

    async def _readyz(self, call: Call) -> Reply:
        why = self.service.unready()
        if why:
            raise StateError("HR-1008", f"not ready: {why}", retryable=True)
        return Reply(200, b'{"status":"ready"}')

    async def _drain(self, call: Call) -> Reply:
        self.service.drain()
        _logger.info("drains", extra={"token": call.token})
        return await self._drained(call)

    async def _drained(self, call: Call) -> Reply:
        return reply_of(self.service.drained())

    async def _metrics(self, call: Call) -> Reply:
        return Reply(200, self.service.metrics.text(), b"text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, call: Call) -> Reply:
        project = self.service.project
        if self._document is None or self._document[0] is not project:
            found = openapi.document(project.definitions, list(self.service.lanes))
            self._document = project, answers.encode(found)
        return Reply(200, self._document[1])

    # --- bodies ---

    async def _body(self, call: Call, bytes_max: int) -> bytes:
        """The whole body. Raises: InputError HR-1004, StateError HR-1008 where too many arrive at once."""
        length = call.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > bytes_max:
            raise _too_large(bytes_max)
        message = await call.receive()
        if message["type"] != "http.request":
            raise DisconnectedError
        body = _bytes(message)
        if message.get("more_body"):
            body = await self._rest(call, body, bytes_max)
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body

    async def _rest(self, call: Call, first: bytes, bytes_max: int) -> bytes:
        parts, size = [first], len(first)
        held = size
        self._buffered += size
        try:
            while True:
                if size > bytes_max:
                    raise _too_large(bytes_max)
                if self._buffered > self.service.settings.buffered_bytes_max:
                    raise StateError("HR-1008", "too many bodies arrive at once", hint="send it again", retryable=True)
                message = await call.receive()
                if message["type"] != "http.request":
                    raise DisconnectedError
                part = _bytes(message)
                parts.append(part)
                size += len(part)
                held += len(part)
                self._buffered += len(part)
                if not message.get("more_body"):
                    return b"".join(parts)
        finally:
            self._buffered -= held


def fault(error: Exception, route: str) -> HeadraceError:
    """What should not have happened, as callers are told."""
    return HeadraceError("HR-1018", f"{type(error).__name__} in {route}")


# Retried by the caller while a partition changes hands: counted by route and status, and no line each.
_PASSING = ("HR-0722", "HR-0723", "HR-1020")


def _path(name: str, features: bool, language: str | None) -> str:
    asked = {"features": "true"} if features else {}
    asked |= {} if language is None else {"language": language}
    return f"/v1/decisions/{name}" + (f"?{urllib.parse.urlencode(asked)}" if asked else "")


def reply_of(found: object) -> Reply:
    """What was found, as JSON."""
    return Reply(200, answers.encode(found))


def fields_of(reply: Reply, trace: Trace | None) -> list[tuple[bytes, bytes]]:
    """An answer's header fields."""
    fields = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        (b"cache-control", b"no-store"),
        *reply.headers,
    ]
    if trace is not None:
        fields.append((b"traceparent", trace.header))
    return fields


def _bytes(message: Message) -> bytes:
    body = message.get("body", b"")
    assert isinstance(body, bytes), "ASGI's body"
    return body


def _too_large(bytes_max: int) -> InputError:
    return InputError(
        "HR-1004", "the body is too large", detail=f"expected at most {bytes_max:,} bytes", hint="send parts"
    )


def _segments(raw: bytes) -> tuple[str, ...]:
    """A path's parts, decoded one by one. Raises: InputError HR-1007."""
    parts = raw.split(b"?", 1)[0].split(b"/")[1:]
    if len(parts) > 32 or len(raw) > 4_096:
        raise InputError("HR-1007", "the path is too long", field="path")
    try:
        found = [urllib.parse.unquote_to_bytes(part).decode() for part in parts]
    except UnicodeDecodeError as error:
        raise InputError("HR-1007", "the path is not UTF-8", field="path") from error
    if len(found) == 3 and found[:2] == ["v1", "decisions"]:
        found[2:] = found[2].split("/")  # an id, its slashes encoded
    return tuple(found)


def _content_type(headers: Headers, taken: Sequence[str]) -> str:
    """Raises: InputError HR-1003."""
    raw = headers.get(b"content-type", b"")
    if raw == _JSON and taken[0] == JSON and b"content-encoding" not in headers:
        return JSON
    given = raw.decode("latin-1")
    kind, _, parameters = given.partition(";")
    kind = kind.strip().lower()
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind not in taken or charset not in ("", "charset=utf-8"):
        raise InputError(
            "HR-1003",
            f"content type {given[:80]!r}",
            detail=f"expected {' or '.join(taken)}, in UTF-8",
            field="content-type",
        )
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise InputError(
            "HR-1003", "the body is encoded", detail="expected no content-encoding", field="content-encoding"
        )
    return kind


def _query(query: bytes, known: Sequence[str]) -> dict[str, str]:
    """Raises: InputError HR-1007 for another parameter, or one that stands twice."""
    if not query:
        return {}
    try:
        pairs = urllib.parse.parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=16
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            "HR-1007", "the query cannot be read", detail=f"expected {', '.join(known)}", field="query"
        ) from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known or name in found:
            raise InputError(
                "HR-1007",
                f"parameter {name[:80]!r} {'stands twice' if name in found else 'is unknown'}",
                detail=f"expected {', '.join(known)}",
                field=name[:80],
            )
        found[name] = value
    return found


def _flag(asked: Mapping[str, str], name: str) -> bool:
    said = asked.get(name, "false")
    if said not in ("true", "false"):
        raise InputError("HR-1007", f"parameter {name}: {said[:80]!r}", detail="expected true or false", field=name)
    return said == "true"


def _budget(header: bytes | None) -> float | None:
    """Seconds from `Headrace-Budget-Ms`. Raises: InputError HR-1007."""
    if header is None:
        return None
    if not header.isdigit() or len(header) > 6 or not 1 <= int(header) <= BUDGET_MS_MAX:
        raise InputError(
            "HR-1007",
            f"headrace-budget-ms: {header[:20].decode('latin-1')!r}",
            detail=f"expected whole milliseconds, 1 to {BUDGET_MS_MAX:,}",
            field="headrace-budget-ms",
        )
    return int(header) / 1e3


def _check_key(header: bytes, id_field: str, request: Mapping[str, object]) -> None:
    """The key of a request is its id. Raises: InputError HR-1007."""
    if id_field in request and header.strip().decode("utf-8", errors="replace") != str(request[id_field]):
        raise InputError(
            "HR-1007",
            "the idempotency key is not the request's id",
            detail=f"expected the value of field {id_field!r}",
            hint="leave the header out: the id is the key",
            field="idempotency-key",
        )


def _is_local(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        name = name.partition("]")[0] + "]"
    else:
        name = name.partition(":")[0]
    if name in _LOCAL_HOSTS:
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
