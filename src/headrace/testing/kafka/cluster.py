"""`KafkaCluster`: a real cluster for tests, whose nodes never outlive the process that started it, and can be killed,
paused and started again one by one. Touches: its folder, processes, its ports."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from headrace.core.times import ZERO, Duration
from headrace.testing.kafka.certificates import authority
from headrace.testing.kafka.define import (
    HEAP_MB,
    KafkaClusterError,
    NodeState,
    brokers_checked,
    name_checked,
    users_checked,
)
from headrace.testing.kafka.folder import make_layout, node_data, node_log, private_folder, read_layout
from headrace.testing.kafka.machine import Machine, locked, tools
from headrace.testing.kafka.nodes import Nodes

# On two busy cores a cluster of three has taken half a minute.
PATIENCE = Duration.parse("2m")
_GRACE = Duration.parse("20s")


class KafkaCluster:
    """A context manager. Inside it the cluster is ready; at its end every node is killed, and the folder stays.

        with KafkaCluster(tmp_path / "kafka", brokers=3, machine=Machine(cache=...)) as cluster:
            producer = Producer({"bootstrap.servers": cluster.bootstrap})
            cluster.kill(2)

    folder: private to it; one that holds a cluster already is gone on with, as it was made. For a new one: brokers, 1
    to 8, up to three of which vote; settings, lines of server.properties that win over ours; users, names and passwords
    for `sasl_bootstrap`; tls, which `tls_bootstrap` speaks, with a password where there are users; long_lived, that
    nodes run code of Java's second compiler, too. Nodes end with this process, also when it is killed (SIGKILL), and
    not with the thread that started them. Methods may be called from any thread, one at a time.

    Raises (`with`): MissingExtraError HR-0911 (Java or Maven), KafkaClusterError HR-0912, HR-0914 to HR-0918,
    UsageError HR-0910.
    """

    def __init__(
        self,
        folder: Path,
        *,
        machine: Machine,
        brokers: int = 1,
        name: str = "test",
        settings: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        tls: bool = False,
        heap_mb: int = HEAP_MB,
        long_lived: bool = False,
        patience: Duration = PATIENCE,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._machine = machine
        self._brokers = brokers_checked(brokers)
        self._name = name_checked(name)
        self._settings = dict(settings or {})
        self._users = dict(users_checked(users or {}))
        self._tls = tls
        self._heap_mb = heap_mb
        self._long_lived = long_lived
        self._patience = patience
        self._say = say
        self._open: tuple[Nodes, ExitStack] | None = None

    def __enter__(self) -> KafkaCluster:
        self._tools = tools(self._machine, say=self._say)
        folder = private_folder(self._folder)
        with ExitStack() as stack:
            if not stack.enter_context(locked(folder.with_name(f"{folder.name}.lock"), wait=False)):
                raise KafkaClusterError("HR-0918", f"another process has the cluster in {folder}")
            cluster = read_layout(folder) or make_layout(
                folder,
                self._name,
                self._brokers,
                machine=self._machine,
                settings=self._settings,
                users=self._users,
                heap_mb=self._heap_mb,
                long_lived=self._long_lived,
                tls=self._tls,
            )
            nodes = Nodes(folder, cluster, leash=True)
            stack.callback(lambda: nodes.end(nodes.ids, grace=ZERO))
            nodes.start(nodes.ids, self._tools)
            nodes.wait_ready(self._patience, say=self._say)
            self._open = nodes, stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None, "not entered"
        _, stack = self._open
        self._open = None
        stack.close()

    @property
    def bootstrap(self) -> str:
        """bootstrap.servers: every broker."""
        return self._nodes.cluster.bootstrap

    @property
    def sasl_bootstrap(self) -> str:
        """The same for clients with a name and a password (SCRAM-SHA-512), over TLS where the cluster has it; empty
        without users."""
        return self._nodes.cluster.sasl_bootstrap

    @property
    def tls_bootstrap(self) -> str:
        """The same for clients that speak TLS, with a password where the cluster has users; empty without TLS."""
        return self._nodes.cluster.tls_bootstrap

    @property
    def ca(self) -> Path:
        """The certificate to trust, in PEM. Only with TLS."""
        return authority(self._nodes.folder)

    @property
    def cluster_id(self) -> str:
        return self._nodes.cluster.cluster_id

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes' numbers, from 1 on."""
        return self._nodes.ids

    @property
    def _nodes(self) -> Nodes:
        assert self._open is not None, "a cluster is used inside its `with`"
        return self._open[0]

    def kill(self, node: int) -> None:
        """As a power cut ends it: SIGKILL. Returns when it is gone."""
        self._nodes.end([node], grace=ZERO)

    def stop(self, node: int) -> None:
        """In order: it hands its partitions over first. After 20 s it is killed."""
        self._nodes.end([node], grace=_GRACE)

    def pause(self, node: int) -> None:
        """As a machine that hangs: SIGSTOP; its connections stay open. Nothing where it is down."""
        self._nodes.signal(node, signal.SIGSTOP)

    def resume(self, node: int) -> None:
        """SIGCONT. Nothing where it is not paused."""
        self._nodes.signal(node, signal.SIGCONT)

    def start(self, node: int) -> None:
        """Start one that is down, on its data; returns before it answers (`wait_ready`). Nothing where it runs."""
        if node not in self._nodes.running():
            self._nodes.start([node], self._tools)

    def restart(self, node: int) -> None:
        """Stop and start, in order."""
        self.stop(node)
        self.start(node)

    def state(self, node: int) -> NodeState:
        """Asks it; a second where it does not answer."""
        return next(one.state for one in self._nodes.reports() if one.id == self._nodes.node(node).id)

    def pid(self, node: int) -> int:
        """Its process; 0 where it is down."""
        process = self._nodes.running().get(self._nodes.node(node).id)
        return process.pid if process is not None else 0

    def data(self, node: int) -> Path:
        """Where its log lies."""
        return node_data(self._nodes.folder, self._nodes.node(node).id)

    def log(self, node: int) -> str:
        """What it has said, since the folder was made."""
        return node_log(self._nodes.folder, self._nodes.node(node).id).read_text(encoding="utf-8", errors="replace")

    def wait_ready(self, patience: Duration = PATIENCE) -> None:
        """Until every node answers and sees every broker. Raises: KafkaClusterError HR-0915, at once where one is
        down."""
        self._nodes.wait_ready(patience, say=self._say)

    def wait_in_sync(self, patience: Duration = PATIENCE) -> None:
        """Until every partition has a leader and every replica is in sync. Raises: KafkaClusterError HR-0915."""
        self._nodes.wait_in_sync(patience)

    def mend(self, patience: Duration = PATIENCE) -> None:
        """Resume and start whatever is paused or down, and wait until all is in sync."""
        for node, process in self._nodes.running().items():
            if process.paused:
                self.resume(node)
        for node in self.nodes:
            self.start(node)
        self.wait_ready(patience)
        self.wait_in_sync(patience)
