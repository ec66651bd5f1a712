"""Where a request is decided: here, or by the process that owns its partition. On the loop. Touches: the lane, other
processes.

The one idea: whose a request is, is asked before it waits for anything. In a lane it would wait for others' decisions
to be told that it is not decided here; and what nobody owns for the moment waits without work, only so many at once, as
whoever is turned away at once comes back when there is an owner.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from headrace.api.forwarded import Forward, Forwarded
from headrace.api.forwarding import Forwarder
from headrace.api.lanes import Lane, Waiting
from headrace.core.errors import NotOwnerError
from headrace.decisions.owners import OwnedDecider

PAUSES = 0.02, 0.25  # seconds between two looks for an owner: doubled each time
_MOVED = "HR-0722"


class _Said(msgspec.Struct):
    """Of problem details."""

    code: str = ""


class Routing:
    """Of one process. waiting_max: requests that wait for an owner at once."""

    def __init__(self, forwarder: Forwarder, look_soon: Callable[[], None], *, waiting_max: int) -> None:
        """look_soon: somebody was not found."""
        self._forwarder = forwarder
        self._look_soon = look_soon
        self._waiting_max = waiting_max
        self._waits = 0

    def waits(self) -> int:
        """Requests that wait until somebody owns their partition."""
        return self._waits

    async def decided(
        self, lane: Lane, request: Mapping[str, object], within: float, caller: bytes, forward: Forward
    ) -> Forwarded | Waiting:
        """The owner's answer, or what became of the request in this process's lane. within: seconds of the caller's
        budget. caller: as `Lane.submit` has it.

        Raises: NotOwnerError HR-0722, where nobody owns the partition for longer than the budget, or too many wait
        already; as `Lane.submit` and `Forwarder.post`."""
        expires, pause = time.monotonic() + within, PAUSES[0]
        index = _decider(lane).index_of(request)
        if index is None:
            return lane.submit(request, within, caller)
        while (left := expires - time.monotonic()) > 0:
            decider = _decider(lane)
            owner = decider.owner_of(index)
            if owner == decider.name:
                one = lane.submit(request, left, caller)
                if not isinstance(await one.future, NotOwnerError):
                    return one
                owner, left = _other(decider, index), expires - time.monotonic()
            if owner is not None and left > 0:
                found = await self._forwarder.post(owner, forward, within=left)
                if not _moved(found):
                    return found
            if self._waits >= self._waiting_max:
                break
            await self._pause(max(0.0, min(pause, expires - time.monotonic())))
            pause = min(2 * pause, PAUSES[1])
        raise _decider(lane).not_owned(index)

    async def _pause(self, seconds: float) -> None:
        self._look_soon()
        self._waits += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waits -= 1


def _decider(lane: Lane) -> OwnedDecider:
    assert isinstance(lane.decides, OwnedDecider), "of a log that is shared"
    return lane.decides


def _other(decider: OwnedDecider, index: int) -> str | None:
    """Who owns what this process has just lost; None while that is not known, or it is this one again."""
    owner = decider.owner_of(index)
    return None if owner == decider.name else owner


def _moved(found: Forwarded) -> bool:
    """Whether whoever was asked is not the owner any more; another refusal is the caller's to know, at once."""
    if found.status != 503:
        return False
    try:
        return msgspec.json.decode(found.body, type=_Said).code == _MOVED
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
