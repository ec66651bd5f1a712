"""Clusters by name, in one folder of this user: up, down, status, logs. They run on when the command has ended.

Touches: that folder, processes, ports of 127.0.0.1. Verbs of one name wait for one another.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.core.errors import HeadraceError, NotFoundError, UsageError, did_you_mean
from headrace.core.times import ZERO, Duration
from headrace.testing.kafka import processes
from headrace.testing.kafka.certificates import authority
from headrace.testing.kafka.define import (
    HEAP_MB,
    KafkaClusterError,
    Layout,
    NodeState,
    brokers_checked,
    name_checked,
)
from headrace.testing.kafka.folder import make_layout, node_log, private_folder, read_layout, remove, usable_folder
from headrace.testing.kafka.machine import Machine, locked, tools
from headrace.testing.kafka.nodes import NodeReport, Nodes

LOCK_PATIENCE = Duration.parse("3m")
GRACE = Duration.parse("15s")
_LOCK_POLL_S = 0.1
_FOLLOW_POLL_S = 0.2
_LOG_PART_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """A cluster as it is now. cluster: how it was made; None where its state cannot be read, which `problem` says."""

    name: str
    folder: Path
    cluster: Layout | None
    nodes: tuple[NodeReport, ...]
    problem: str = ""

    @property
    def ca(self) -> Path | None:
        """The certificate that clients trust; None where the cluster has no TLS."""
        return authority(self.folder) if self.cluster is not None and self.cluster.tls else None

    @property
    def up(self) -> bool:
        return bool(self.nodes) and all(node.state is NodeState.UP for node in self.nodes)


def up(
    root: Path,
    name: str,
    brokers: int | None,
    *,
    machine: Machine,
    patience: Duration,
    say: Callable[[str], None],
    tls: bool = False,
) -> ClusterReport:
    """Make the cluster be ready: made if there is none (one broker by default; tls: with TLS as well), its dead nodes
    started on their data, its paused ones resumed. Where it fails, what it started is ended again.

    Raises: UsageError HR-0910, MissingExtraError HR-0911, KafkaClusterError HR-0912, HR-0914 to HR-0918.
    """
    name_checked(name)
    if brokers is not None:
        brokers_checked(brokers)
    root = usable_folder(root)
    with _held(root, name):
        folder = root / name
        cluster = read_layout(folder)
        if cluster is not None and brokers not in (None, len(cluster.nodes)):
            raise UsageError(
                "HR-0910",
                f"cluster {name!r} has {counted(cluster)}, not {brokers}",
                detail="the count of a cluster with data stays",
                hint=f"headrace dev kafka down --name {name} --delete, or take another name",
            )
        if cluster is not None and tls and not cluster.tls:
            raise UsageError(
                "HR-0910",
                f"cluster {name!r} has no TLS",
                detail="a cluster with data stays as it was made",
                hint=f"headrace dev kafka down --name {name} --delete, or take another name",
            )
        found = tools(machine, say=say)
        if cluster is None:
            cluster = make_layout(
                private_folder(folder),
                name,
                brokers or 1,
                machine=machine,
                settings={},
                users={},
                heap_mb=HEAP_MB,
                tls=tls,
            )
        nodes = Nodes(folder, cluster, leash=False)
        running = nodes.running()
        for id in running:
            nodes.signal(id, signal.SIGCONT)
        missing = [id for id in nodes.ids if id not in running]
        try:
            nodes.start(missing, found)
            nodes.wait_ready(patience, say=say)
        except BaseException:
            nodes.end(missing, grace=ZERO)
            raise
        return _report(folder, nodes)


def counted(cluster: Layout) -> str:
    """ "1 broker", "3 brokers"."""
    count = len(cluster.nodes)
    return f"{count} broker{'s' if count > 1 else ''}"


def down(root: Path, name: str, *, delete: bool) -> int:
    """End every node of the cluster, its data kept or deleted; how many ran. Also where its state cannot be read: its
    nodes are known by their command lines. Deleted data need no orderly end.

    Raises: UsageError HR-0910, NotFoundError HR-0913, KafkaClusterError HR-0915, HR-0917, HR-0918.
    """
    folder = _existing(root, name)
    with _held(folder.parent, name):
        running = [*processes.found_under(folder)]
        processes.end(running, grace=ZERO if delete else GRACE)
        if delete:
            remove(folder)
        return len(running)


def status(root: Path, name: str | None) -> list[ClusterReport]:
    """Every cluster, or the one of this name. Raises: UsageError HR-0910, NotFoundError HR-0913."""
    folders = [_existing(root, name)] if name is not None else [root.resolve() / one for one in names(root)]
    found = []
    for folder in folders:
        try:
            cluster = read_layout(folder)
        except HeadraceError as error:
            found.append(ClusterReport(name=folder.name, folder=folder, cluster=None, nodes=(), problem=error.message))
            continue
        if cluster is not None:
            found.append(_report(folder, Nodes(folder, cluster, leash=False)))
        elif name is not None:
            raise _unknown(root, name)
    return found


def names(root: Path) -> list[str]:
    """Of the clusters that there are, sorted."""
    return sorted(one.name for one in root.iterdir() if one.is_dir()) if root.is_dir() else []


def logs(root: Path, name: str, node: int | None, *, lines_max: int, follow: bool) -> Iterator[tuple[int, str]]:
    """(node, line): the last lines of each node, then, where asked to, those that come, until interrupted.

    Raises: UsageError HR-0910, NotFoundError HR-0913 for an unknown cluster or node, KafkaClusterError HR-0916.
    """
    folder = _existing(root, name)
    cluster = read_layout(folder)
    if cluster is None:
        raise _unknown(root, name)
    nodes = Nodes(folder, cluster, leash=False)
    wanted = nodes.ids if node is None else (nodes.node(node).id,)
    tails = {id: _Tail(node_log(folder, id)) for id in wanted}
    for id, tail in tails.items():
        yield from ((id, line) for line in tail.last(lines_max))
    while follow:
        came = [(id, line) for id, tail in tails.items() for line in tail.new()]
        yield from came
        if not came:
            time.sleep(_FOLLOW_POLL_S)


class _Tail:
    """A log that grows, and begins anew when its node is started with a long one."""

    def __init__(self, file: Path) -> None:
        self._file, self._at, self._inode, self._rest = file, 0, 0, b""

    def last(self, lines_max: int) -> list[str]:
        """The last lines now."""
        try:
            with self._file.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._inode = os.fstat(file.fileno()).st_ino
                self._at = max(0, size - _LOG_PART_BYTES)
        except FileNotFoundError:
            return []
        lines: list[str] = []
        while part := self.new():
            lines = [*lines, *part][-lines_max:]
        return lines if lines_max else []

    def new(self) -> list[str]:
        """Whole lines since the last call, some of them where they are many."""
        try:
            with self._file.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._inode or found.st_size < self._at:
                    self._inode, self._at, self._rest = found.st_ino, 0, b""
                file.seek(self._at)
                part = file.read(_LOG_PART_BYTES)
        except FileNotFoundError:
            return []
        self._at += len(part)
        *lines, self._rest = (self._rest + part).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def _report(folder: Path, nodes: Nodes) -> ClusterReport:
    return ClusterReport(name=folder.name, folder=folder, cluster=nodes.cluster, nodes=tuple(nodes.reports()))


def _existing(root: Path, name: str) -> Path:
    folder = root.resolve() / name_checked(name)
    if not folder.is_dir():
        raise _unknown(root, name)
    return folder


def _unknown(root: Path, name: str) -> NotFoundError:
    return NotFoundError(
        "HR-0913",
        f"no Kafka cluster {name!r}",
        detail=f"looked in {root}",
        hint=did_you_mean(name, names(root)) or f"headrace dev kafka up --name {name}",
    )


@contextmanager
def _held(root: Path, name: str) -> Iterator[None]:
    """One process at a time changes a cluster. Raises: KafkaClusterError HR-0918 after three minutes."""
    until = time.monotonic() + LOCK_PATIENCE.micros / 1e6
    while True:
        with locked(root / f"{name}.lock", wait=False) as held:
            if held:
                yield
                return
        if time.monotonic() > until:
            raise KafkaClusterError(
                "HR-0918",
                f"another process has held the cluster {name!r} for {LOCK_PATIENCE}",
                hint="it starts or ends it, or is a test that uses it",
                retryable=True,
            )
        time.sleep(_LOCK_POLL_S)
