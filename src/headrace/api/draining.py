"""A serving process hands everything over to the others and goes on answering meanwhile. Touches: what it owns and
holds, and sockets where it is asked to.

The one idea: nothing is given up before somebody else has it. A partition is decided here until another's claim lies in
the log, a part of views is held here until another says that it holds it, and what comes in for either is sent on from
then on: so a drain costs no request its answer, and one where nobody else is left changes nothing but readiness.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from headrace.api.calling import called, reason_of
from headrace.core.errors import NotFoundError, StateError
from headrace.decisions.owners import OwnedDecider
from headrace.runtime.holding import Holding
from headrace.runtime.ownership import Ownership

SERVING, DRAINING, DRAINED = "serving", "draining", "drained"
LOOK_SECONDS = 0.2  # between two looks of who waits for it


class Decided(msgspec.Struct, frozen=True):
    """A partition of a decision's requests."""

    decision: str
    partition: int


class Held(msgspec.Struct, frozen=True):
    """A partition of a derived topic whose views are held."""

    topic: str
    partition: int


class DrainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How far a process is. state: serving, draining, drained. decides, holds: what it still has, in order."""

    state: str
    decides: Sequence[Decided]
    holds: Sequence[Held]


class Draining:
    """Of one process. `begin` may be called again; there is no way back but a new process."""

    def __init__(
        self, ownership: Ownership, owners: Callable[[], Mapping[str, OwnedDecider]], holding: Holding
    ) -> None:
        self._ownership = ownership
        self._owners = owners
        self._holding = holding

    @property
    def begun(self) -> bool:
        return self._ownership.draining

    def begin(self) -> None:
        """Leave the group, which gives everything to the others, and take nothing any more."""
        self._ownership.drain()

    def wanted(self, holder: Callable[[str, int], str | None]) -> Callable[[str], frozenset[int]]:
        """Of which partitions of a topic views are to be held here: those that the group gives, and while this process
        drains those that nobody else has said to hold. holder: who else said so, of a topic's partition."""

        def of(topic: str) -> frozenset[int]:
            given = self._ownership.given(topic)
            if not self.begun:
                return given
            return given | {index for index in self._holding.held(topic) if holder(topic, index) is None}

        return of

    def answer(self) -> DrainAnswer:
        decides = [Decided(name, index) for name, owner in self._owners().items() for index in sorted(owner.owned)]
        holds = [Held(topic, index) for topic in self._holding.topics for index in sorted(self._holding.held(topic))]
        state = SERVING if not self.begun else DRAINING if decides or holds else DRAINED
        return DrainAnswer(state=state, decides=decides, holds=holds)


def no_others() -> NotFoundError:
    """What a server is told to whose log belongs to it alone."""
    return NotFoundError(
        "HR-1021",
        "this server cannot be drained: it is the only one that can read its log",
        detail="the log is a file of one process; on Kafka others take over",
        hint="end it by SIGTERM: it answers what it has accepted first",
    )


def drain_server(url: str, token: str | None, *, within: float) -> None:
    """Drain the server at an address, and wait until others have all that it had. token: with the scope servers:drain.
    within: seconds. Raises: StateError HR-1022 where it cannot be asked, or is not done in time."""
    url, method = url.rstrip("/"), "POST"
    deadline = time.monotonic() + within
    while True:
        found = _asked(url, token, method)
        if found.state == DRAINED:
            return
        if time.monotonic() > deadline:
            raise _left(url, found, within)
        method = "GET"
        time.sleep(LOOK_SECONDS)


def _asked(url: str, token: str | None, method: str) -> DrainAnswer:
    try:
        status, body, _ = called(f"{url}/v1/drain", token, method=method)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StateError("HR-1022", f"no server answers at {url}", detail=reason_of(error)) from error
    if status != 200:
        raise StateError("HR-1022", f"the server at {url} does not drain: status {status}", detail=_why(body))
    try:
        return msgspec.json.decode(body, type=DrainAnswer)
    except msgspec.MsgspecError as error:
        raise StateError("HR-1022", f"what answers at {url} is no headrace server", detail=str(error)) from error


def _left(url: str, found: DrainAnswer, within: float) -> StateError:
    left = [f"decision {one.decision} partition {one.partition}" for one in found.decides]
    left += [f"views of {one.topic} partition {one.partition}" for one in found.holds]
    return StateError(
        "HR-1022",
        f"the server at {url} is not drained after {within:g} s",
        detail=f"nobody took over {', '.join(left)}; it goes on with these",
        hint="is another server of this log ready? ended now, these are without an owner until one is",
    )


def _why(body: bytes) -> str:
    """What problem details say, or what else was answered."""
    try:
        problem = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return repr(body[:200])
    return ", ".join(str(problem[name]) for name in ("code", "title", "detail", "hint") if name in problem)
