"""The nodes of one cluster: formatted, started, asked, ended. Touches: the cluster's folder, processes, its ports.

Every start is a start on what is there: a node without data is formatted first, one with data goes on with it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from headrace.core.errors import NotFoundError
from headrace.core.times import Duration
from headrace.testing.kafka import processes
from headrace.testing.kafka.certificates import keystore, make_certificate
from headrace.testing.kafka.define import KafkaClusterError, Layout, Node, NodeState
from headrace.testing.kafka.folder import node_data, node_folder, node_log, ports_in_use
from headrace.testing.kafka.machine import Tools
from headrace.testing.kafka.plan import (
    ClusterView,
    format_command,
    keystore_password,
    node_command,
    not_in_sync,
    not_ready,
    numbered,
    properties,
    telling,
)
from headrace.testing.kafka.processes import NodeProcess
from headrace.testing.kafka.wire import ask

_LOGGING = Path(__file__).with_name("log4j2.xml")
_ASK_TIMEOUT = Duration.parse("1s")
_POLL_S = 0.1
_PORTS_PATIENCE_S = 5.0
_LOG_BYTES_MAX = 16 << 20
_REASON_LINES_MAX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """A node as it is now. pid: 0 where it has no process."""

    id: int
    roles: tuple[str, ...]
    state: NodeState
    pid: int
    port: int
    controller_port: int


class Nodes:
    """leash: nodes end when this process ends, however that ends; else they outlive it."""

    def __init__(self, folder: Path, cluster: Layout, *, leash: bool) -> None:
        self.folder = folder
        self.cluster = cluster
        self._leash = leash
        self._launchers: dict[int, subprocess.Popen[str]] = {}
        self._began: dict[int, int] = {}  # where a node's log stood when it was started

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(node.id for node in self.cluster.nodes)

    def node(self, id: int) -> Node:
        """Raises: NotFoundError HR-0913."""
        for node in self.cluster.nodes:
            if node.id == id:
                return node
        raise NotFoundError(
            "HR-0913", f"cluster {self.cluster.name!r} has no node {id}", hint=f"there is: {numbered(self.ids)}"
        )

    def running(self) -> dict[int, NodeProcess]:
        """The nodes that have a process, paused ones too."""
        found = processes.found_under(self.folder)
        return {id: found[place] for id in self.ids if (place := node_folder(self.folder, id)) in found}

    def reports(self) -> list[NodeReport]:
        """Every node; one that runs is asked."""
        running = self.running()
        answers = self.answers(id for id, process in running.items() if not process.paused)
        return [self._report(node, running.get(node.id), answers.get(node.id)) for node in self.cluster.nodes]

    def _report(self, node: Node, process: NodeProcess | None, answer: ClusterView | None) -> NodeReport:
        if process is None:
            state = NodeState.DOWN
        elif process.paused:
            state = NodeState.PAUSED
        else:
            ours = answer is not None and answer.cluster_id == self.cluster.cluster_id
            state = NodeState.UP if ours else NodeState.STARTING
        return NodeReport(
            id=node.id,
            roles=("broker", "controller") if node.votes else ("broker",),
            state=state,
            pid=process.pid if process is not None else 0,
            port=node.port,
            controller_port=node.controller_port,
        )

    def answers(self, ids: Iterable[int]) -> dict[int, ClusterView | None]:
        """What each of them sees; None where it gives no answer within a second."""
        wanted = [self.node(id) for id in ids]
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            found = pool.map(lambda node: ask(node.port, timeout=_ASK_TIMEOUT), wanted)
            return {node.id: answer for node, answer in zip(wanted, found, strict=True)}

    def start(self, ids: Collection[int], tools: Tools) -> None:
        """Start nodes that have no process; those without data are formatted first.

        Raises: KafkaClusterError HR-0914 where a port is taken, HR-0915 where one cannot be formatted or started.
        """
        wanted = [self.node(id) for id in sorted(ids)]
        self._ports_free(wanted)
        if self.cluster.tls:
            make_certificate(self.folder, tools.java, keystore_password(self.cluster))
        self._format([node for node in wanted if not node_data(self.folder, node.id).is_dir()], tools)
        for node in wanted:
            place, log = node_folder(self.folder, node.id), node_log(self.folder, node.id)
            (place / "tmp").mkdir(exist_ok=True)
            (place / "server.properties").write_text(
                self._properties(node, node_data(self.folder, node.id)), encoding="ascii"
            )
            if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
                log.replace(log.with_suffix(".log.1"))
            self._began[node.id] = log.stat().st_size if log.exists() else 0
            self._reap(node.id)
            self._launchers[node.id] = processes.start(
                node_command(str(tools.java), str(tools.libs), self.cluster, str(place), logging=str(_LOGGING)),
                folder=place,
                log=log,
                leash=self._leash,
            )

    def _properties(self, node: Node, data: Path) -> str:
        return properties(self.cluster, node, str(data), keystore=str(keystore(self.folder)))

    def _ports_free(self, wanted: Iterable[Node]) -> None:
        """Waits a little: a node that was killed just now is none any more while its last threads hold its ports."""
        until = time.monotonic() + _PORTS_PATIENCE_S
        for node in wanted:
            ports = replace(self.cluster, nodes=(node,)).ports
            while (taken := ports_in_use(ports)) and time.monotonic() < until:
                time.sleep(_POLL_S)
            if taken:
                raise KafkaClusterError(
                    "HR-0914",
                    f"node {node.id} of cluster {self.cluster.name!r} cannot be started: its port {taken[0]} is taken",
                    detail="a cluster with data keeps its ports, which its voters know one another by",
                    hint=f"end what listens there: ss -ltnp 'sport = :{taken[0]}'",
                    port=taken[0],
                )

    def _format(self, wanted: Collection[Node], tools: Tools) -> None:
        """Each into a folder beside, all at once; it gets its name when it is whole."""
        running = [(node, *self._format_begin(node, tools)) for node in wanted]
        ended = [(node, data, began, launcher.wait()) for node, data, began, launcher in running]
        for node, data, began, status in ended:
            if status != 0:
                raise self._failed(node.id, "its disk could not be formatted", began)
            data.rename(node_data(self.folder, node.id))

    def _format_begin(self, node: Node, tools: Tools) -> tuple[Path, int, subprocess.Popen[str]]:
        """The folder that is formatted, where the log stood before, and who does it: it ends with this process."""
        place, log = node_folder(self.folder, node.id), node_log(self.folder, node.id)
        place.mkdir(exist_ok=True)
        settings, data = place / "format.properties", place / "data.new"
        if data.exists():
            shutil.rmtree(data)  # its formatting was broken off
        settings.write_text(self._properties(node, data), encoding="ascii")
        began = log.stat().st_size if log.exists() else 0
        command = format_command(str(tools.java), str(tools.libs), self.cluster, node, str(settings))
        return data, began, processes.start(command, folder=place, log=log, leash=True)

    def wait_ready(self, patience: Duration, *, say: Callable[[str], None]) -> None:
        """Until every node answers and sees every broker registered and unfenced. say: told once, after ten seconds.

        Raises: KafkaClusterError HR-0915 where a node ends meanwhile, or patience does.
        """
        begun = time.monotonic()
        told = False
        while True:
            running = self.running()
            for id in self.ids:
                if id not in running:
                    raise self._failed(id, "it ended while the cluster started", self._began.get(id, 0))
            lacking = not_ready(self.cluster, self.answers(self.ids))
            if not lacking:
                return
            waited = time.monotonic() - begun
            if waited > patience.micros / 1e6:
                raise KafkaClusterError(
                    "HR-0915",
                    f"cluster {self.cluster.name!r} is not ready after {patience}",
                    detail="; ".join(lacking),
                    hint=f"headrace dev kafka logs --name {self.cluster.name}",
                )
            if waited > 10 and not told:
                say(f"still waiting: {'; '.join(lacking)}")
                told = True
            time.sleep(_POLL_S)

    def wait_in_sync(self, patience: Duration) -> None:
        """Until every node sees every partition led, and every replica of it in sync. Raises: KafkaClusterError
        HR-0915."""
        until = time.monotonic() + patience.micros / 1e6
        while True:
            answers = self.answers(self.ids)
            lacking = not_ready(self.cluster, answers) or not_in_sync(
                one for one in answers.values() if one is not None
            )
            if not lacking:
                return
            if time.monotonic() > until:
                raise KafkaClusterError(
                    "HR-0915",
                    f"cluster {self.cluster.name!r} is not in sync after {patience}",
                    detail="; ".join(lacking[:_REASON_LINES_MAX]),
                )
            time.sleep(_POLL_S)

    def signal(self, id: int, number: signal.Signals) -> bool:
        """False where the node has no process. Raises: NotFoundError HR-0913."""
        return processes.send(node_folder(self.folder, self.node(id).id), number)

    def end(self, ids: Iterable[int], *, grace: Duration) -> None:
        """Whatever their state. Raises: NotFoundError HR-0913, KafkaClusterError HR-0915."""
        wanted = [self.node(id).id for id in ids]
        processes.end([node_folder(self.folder, id) for id in wanted], grace=grace)
        for id in wanted:
            self._reap(id)

    def _reap(self, id: int) -> None:
        """A launcher on a leash ends with its node."""
        launcher = self._launchers.pop(id, None)
        if launcher is not None:
            launcher.wait()

    def _failed(self, id: int, what: str, began: int) -> KafkaClusterError:
        log = node_log(self.folder, id)
        with log.open("rb") as file:
            file.seek(began)
            lines = file.read(_LOG_BYTES_MAX).decode("utf-8", "replace").splitlines()
        reasons = telling(lines, lines_max=_REASON_LINES_MAX) or ["it said nothing"]
        return KafkaClusterError(
            "HR-0915",
            f"node {id} of cluster {self.cluster.name!r} did not start: {what}",
            detail="\n  ".join(reasons),
            hint=f"its whole log: {log}",
            node=id,
        )
