"""Sending to a Kafka log: one sender for what stands alone, one for transactions, each one call at a time.

The one idea: a sender of unknown outcome is never used again, and the next with its transactional id ends what it left
open. Touches the cluster through its client.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence

from headrace.clients.kafka.port import Acknowledged, GroupOffset, KafkaClient, Outgoing, Place, Sender
from headrace.core.errors import FencedError, LogError


class Sending:
    """A process's. Any thread may call."""

    def __init__(self, client: KafkaClient, *, prefix: str) -> None:
        self._client = client
        self._lock = threading.RLock()
        self._sender: Sender | None = None
        self._transactor: Sender | None = None
        self._transactional_id = f"{prefix}headrace.append.{uuid.uuid4()}"

    def send(self, records: Sequence[Outgoing]) -> Acknowledged:
        """Where they lie. Raises: as `Sender.send`."""
        if not records:
            return Acknowledged([], [])
        with self._lock:
            if self._sender is None:
                self._sender = self._client.sender()
            try:
                return self._sender.send(records)
            except LogError as error:
                if error.code == "HR-0311" or isinstance(error, FencedError):
                    self._sender.close()
                    self._sender = None
                raise

    def transaction(
        self, records: Sequence[Outgoing], *, group: str | None, offsets: Mapping[Place, GroupOffset] | None
    ) -> list[int]:
        """Records and a group's offsets, all or none; the records' offsets. Raises: as `Sender`."""
        with self._lock:
            if self._transactor is None:
                self._transactor = self._client.sender(transactional_id=self._transactional_id)
            sender = self._transactor
            try:
                sender.begin()
                found = sender.send(records).offsets if records else []
                sender.commit(group=group, offsets=offsets)
                return found
            except LogError as error:
                self._transactor = None  # the next one with this id ends what is open, either way
                if error.code in ("HR-0343", "HR-0345"):
                    _give_up(sender)
                sender.close()
                raise

    def close(self) -> None:
        with self._lock:
            for sender in (self._sender, self._transactor):
                if sender is not None:
                    sender.close()


def _give_up(sender: Sender) -> None:
    try:
        sender.abort()
    except LogError:
        pass  # the broker aborts it, at the latest after its timeout
