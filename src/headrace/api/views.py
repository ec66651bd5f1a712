"""Views that other processes hold, asked over HTTP, and their questions answered. Touches: sockets, threads.

The one idea: a process asks in the name of a caller whose request it decides, with the caller's token, as it forwards
requests: whoever may have a decision may have what it is made of. So processes have no secret of their own to keep.
Between processes alone, and no part of the API.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from urllib.parse import urlsplit

import msgspec

from headrace.core.aggregate import Reason
from headrace.core.errors import InputError
from headrace.decisions.plan import Value
from headrace.runtime.holding import PartAnswer, PartQuestion

PATH, READING = "/v1/held", "/v1/held/read"  # for a decision; for a plain read, which another token allows
QUESTIONS_MAX = 4_096  # of one message: a turn has at most some hundred
CALLER: ContextVar[bytes] = ContextVar(
    "caller", default=b""
)  # the credential of who is decided for, in a lane's thread

_Scalar = int | float | str | bool | None
_Question = tuple[str, int, str, str, int, list[_Scalar] | None, int, int, _Scalar | list[_Scalar]]
_Answer = tuple[list[Value] | None, list[int], int, int | None, int, str | None]


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    questions: list[_Question]


_decode = msgspec.json.Decoder(_Asked).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class OtherProcesses:
    """Those that serve the same log. name: this one's address."""

    def __init__(self, name: str, holder: Callable[[str, int], str | None], *, threads: int = 8) -> None:
        self._name = name
        self._holder = holder
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="headrace-asks")
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def holder(self, topic: str, index: int) -> str | None:
        found = self._holder(topic, index)
        return None if found == self._name else found

    def ask(
        self, address: str, questions: Sequence[PartQuestion], *, within: float, reading: bool = False
    ) -> Future[Sequence[PartAnswer]]:
        body = _encode({"questions": [_told(one) for one in questions]}).encode()
        headers = {"content-type": "application/json"}
        if caller := CALLER.get():
            headers["authorization"] = caller.decode("latin-1")
        path = READING if reading else PATH
        return self._threads.submit(self._asked, address, path, body, headers, within)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for idle in self._idle.values():
            for connection in idle:
                connection.close()

    def _asked(
        self, address: str, path: str, body: bytes, headers: dict[str, str], within: float
    ) -> Sequence[PartAnswer]:
        """Raises: OSError where nobody answers, ValueError for another answer than this."""
        kept = self._kept(address)
        if kept is not None:
            try:
                return self._exchange(address, kept, path, body, headers, within)
            except (OSError, http.client.HTTPException):
                kept.close()  # idle for too long, as a rule; a question may be asked twice
        connection = _connection(address, within)
        try:
            return self._exchange(address, connection, path, body, headers, within)
        except http.client.HTTPException as error:
            connection.close()
            raise OSError(f"{type(error).__name__} from {address}") from error
        except OSError:
            connection.close()
            raise

    def _exchange(
        self,
        address: str,
        connection: http.client.HTTPConnection,
        path: str,
        body: bytes,
        headers: dict[str, str],
        within: float,
    ) -> Sequence[PartAnswer]:
        connection.timeout = within
        if connection.sock is not None:
            connection.sock.settimeout(within)
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        said = answer.read()
        with self._lock:
            self._idle.setdefault(address, []).append(connection)
        if answer.status != 200:
            raise ValueError(f"{address} says {answer.status}")
        try:
            return [_answer(*one) for one in json.loads(said)["answers"]]
        except (TypeError, KeyError) as error:
            raise ValueError(f"{address} answers something else") from error

    def _kept(self, address: str) -> http.client.HTTPConnection | None:
        with self._lock:
            idle = self._idle.get(address)
            return idle.pop() if idle else None


def questions_of(body: bytes) -> list[PartQuestion]:
    """Raises: InputError HR-1006 for what is no list of questions."""
    try:
        found = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("HR-1006", "not questions to views", detail=str(error)[:200]) from error
    if len(found.questions) > QUESTIONS_MAX:
        raise InputError("HR-1006", "too many questions", detail=f"expected at most {QUESTIONS_MAX:,}")
    return [_question(*one) for one in found.questions]


def readings_of(body: bytes) -> list[PartQuestion]:
    """Questions of plain reads. Raises: InputError HR-1006."""
    found = questions_of(body)
    if any(one.row is not None for one in found):
        raise InputError("HR-1006", "not plain reads of views", detail="expected entities, seen a request's row")
    return found


def answers_text(answers: Sequence[PartAnswer]) -> bytes:
    """What is answered to them."""
    said = [(*(one.answer or (None, ())), one.incarnation, one.at, one.age, one.absent) for one in answers]
    return _encode({"answers": said}).encode()


def _told(one: PartQuestion) -> _Question:
    entity = list(one.entity) if isinstance(one.entity, tuple) else one.entity
    row = None if one.row is None else list(one.row)
    return one.topic, one.index, one.view, one.fingerprint, one.t, row, one.source, one.offset, entity  # type: ignore[return-value]  # an entity is of scalars


def _question(
    topic: str,
    index: int,
    view: str,
    fingerprint: str,
    t: int,
    row: list[_Scalar] | None,
    source: int,
    offset: int,
    entity: _Scalar | list[_Scalar],
) -> PartQuestion:
    return PartQuestion(
        topic=topic,
        index=index,
        view=view,
        fingerprint=fingerprint,
        t=t,
        row=None if row is None else tuple(row),
        source=source,
        offset=offset,
        entity=tuple(entity) if isinstance(entity, list) else entity,
    )


def _answer(
    values: list[Value] | None, reasons: list[int], incarnation: int, at: int | None, age: int, absent: str | None
) -> PartAnswer:
    answer = None
    if values is not None:
        answer = tuple(tuple(v) if isinstance(v, list) else v for v in values), tuple(Reason(r) for r in reasons)
    return PartAnswer(answer=answer, incarnation=incarnation, at=at, age=age, absent=absent)


def _connection(address: str, seconds: float) -> http.client.HTTPConnection:
    """Not made yet. seconds: until what is asked for has failed, at each step."""
    where = urlsplit(address)
    if where.scheme == "https":
        return http.client.HTTPSConnection(where.netloc, timeout=seconds, context=ssl.create_default_context())
    return http.client.HTTPConnection(where.netloc, timeout=seconds)
