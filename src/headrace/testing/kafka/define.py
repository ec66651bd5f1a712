"""What a cluster for tests and demos is: its nodes, their ports, its limits, its errors. Pure.

A node is one process with one number. The first ones, an odd count, vote on the metadata and are brokers as well; the
rest are brokers only.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.core.errors import HeadraceError, UsageError

KAFKA_VERSION = "4.3.1"
JAVA_VERSION_MIN = 17

# Each node is a JVM of some 220 MB. A block of ports has room for three ports of each.
BROKERS_MAX = 8
# Three survive the loss of one, and are what the failures of tests need. Five would need three to agree on each change.
VOTERS_MAX = 3
# What stands in the argument that the format tool takes a user by, without its brackets and commas.
USER = re.compile(r"[A-Za-z0-9._-]{1,64}")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")

# Below Linux's range for outgoing connections (32768 on), so that none of those takes a stopped cluster's port.
PORTS_FROM, PORTS_TO, PORTS_A_BLOCK = 20_000, 27_992, 24

HEAP_MB = 384


class KafkaClusterError(HeadraceError):
    """A cluster did not do what was asked: HR-0914 to HR-0918."""


class NodeState(enum.Enum):
    """UP: it answers. STARTING: its process runs and does not answer yet. PAUSED: its process is stopped by a signal.
    DOWN: there is no process."""

    UP = "up"
    STARTING = "starting"
    PAUSED = "paused"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """directory_id: what the voters know this node's disk by. controller_port: 0 where it does not vote. sasl_port: for
    clients with a password, over TLS, or both; 0 where the cluster has neither users nor TLS."""

    id: int
    directory_id: str
    port: int
    controller_port: int
    sasl_port: int = 0

    @property
    def votes(self) -> bool:
        return self.controller_port != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A cluster as it was made; nothing in it changes while it has data.

    cluster_id: 22 characters, as Kafka writes a UUID. ports_from: its block of ports. settings: lines of
    server.properties that win over ours. users: names and passwords for the ports that ask for one (SCRAM-SHA-512).
    long_lived: nodes run code of Java's second compiler, too.
    tls: these ports speak TLS. The other ports ask for no password and speak plain text.
    """

    name: str
    cluster_id: str
    ports_from: int
    nodes: tuple[Node, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)
    heap_mb: int = HEAP_MB
    long_lived: bool = False
    tls: bool = False

    @property
    def voters(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.votes)

    @property
    def bootstrap(self) -> str:
        """What a client is given."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def sasl_bootstrap(self) -> str:
        """The same for one with a password; empty where the cluster has no users."""
        return self._sasl if self.users else ""

    @property
    def tls_bootstrap(self) -> str:
        """The same over TLS, with a password where the cluster has users; empty where it has no TLS."""
        return self._sasl if self.tls else ""

    @property
    def _sasl(self) -> str:
        return ",".join(f"127.0.0.1:{node.sasl_port}" for node in self.nodes if node.sasl_port)

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(port for node in self.nodes for port in (node.port, node.controller_port, node.sasl_port) if port)


def name_checked(name: str) -> str:
    """The name. Raises: UsageError HR-0910 where it is no folder's name."""
    if NAME.fullmatch(name) is None:
        raise UsageError(
            "HR-0910",
            f"a cluster cannot be named {name!r}",
            detail="a name is 1 to 40 of a-z, 0-9 and '-', and begins and ends with a letter or digit",
            name=name,
        )
    return name


def brokers_checked(brokers: int) -> int:
    """The count. Raises: UsageError HR-0910 where it is not from 1 to 8."""
    if not 1 <= brokers <= BROKERS_MAX:
        raise UsageError(
            "HR-0910",
            f"a cluster of {brokers} brokers cannot be started",
            detail=f"it has 1 to {BROKERS_MAX} brokers",
            hint="--brokers 1 is enough for most things, --brokers 3 survives the loss of one",
            brokers=brokers,
        )
    return brokers


def users_checked(users: Mapping[str, str]) -> Mapping[str, str]:
    """The same. Raises: UsageError HR-0910 where a name or password has other characters than the format tool takes."""
    for name, password in users.items():
        for what, text in (("name", name), ("password", password)):
            if USER.fullmatch(text) is None:
                raise UsageError(
                    "HR-0910",
                    f"user {name!r} of a cluster cannot have this {what}",
                    detail="it is 1 to 64 of letters, digits, '.', '_' and '-'",
                )
    return users


def voters_count(brokers: int) -> int:
    """The largest odd count of at most three: an even one would need one more to agree and survive no more losses."""
    count = min(brokers, VOTERS_MAX)
    return count if count % 2 == 1 else count - 1
