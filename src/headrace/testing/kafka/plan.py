"""What the nodes of a cluster are told, and what their answers mean: properties, command lines, ports. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace.testing.kafka.define import (
    BROKERS_MAX,
    PORTS_A_BLOCK,
    PORTS_FROM,
    PORTS_TO,
    Layout,
    Node,
    voters_count,
)

# A node's process is known by this argument, whose value is its folder: no number that the system uses again.
MARK = "-Dheadrace.kafka.node="


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionView:
    """A partition as one broker sees it."""

    topic: str
    index: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """A cluster as one broker sees it. brokers: those that are registered and not fenced."""

    cluster_id: str
    brokers: frozenset[int]
    partitions: tuple[PartitionView, ...]


def layout(
    name: str,
    brokers: int,
    *,
    ports_from: int,
    ids: Sequence[str],
    settings: Mapping[str, str],
    users: Mapping[str, str],
    heap_mb: int,
    long_lived: bool = False,
    tls: bool = False,
) -> Layout:
    """A new cluster. ids: UUIDs as Kafka writes them, the cluster's first, then one a node."""
    voters = voters_count(brokers)
    nodes = tuple(
        Node(
            id=index + 1,
            directory_id=ids[index + 1],
            port=ports_from + index,
            controller_port=ports_from + BROKERS_MAX + index if index < voters else 0,
            sasl_port=ports_from + 2 * BROKERS_MAX + index if users or tls else 0,
        )
        for index in range(brokers)
    )
    return Layout(
        name=name,
        cluster_id=ids[0],
        ports_from=ports_from,
        nodes=nodes,
        settings=dict(settings),
        users=dict(users),
        heap_mb=heap_mb,
        long_lived=long_lived,
        tls=tls,
    )


def port_blocks(first: int, taken: Collection[int]) -> Iterator[int]:
    """The blocks to try, each once, in order from the `first`th on (modulo their count), those that are taken left out.

    Who starts at different places does not meet; `taken` holds the blocks of clusters that are stopped now.
    """
    count = (PORTS_TO - PORTS_FROM) // PORTS_A_BLOCK
    for step in range(count):
        block = PORTS_FROM + (first + step) % count * PORTS_A_BLOCK
        if block not in taken:
            yield block


def properties(cluster: Layout, node: Node, data: str, *, keystore: str = "") -> str:
    """The node's server.properties. data: where its log lies. keystore: of a cluster with TLS."""
    given = {
        **_identity(cluster, node, data),
        **_security(cluster, keystore),
        **_QUICK,
        **_SMALL,
        **_replication(cluster, node),
        **cluster.settings,
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in given.items())


def _identity(cluster: Layout, node: Node, data: str) -> dict[str, str]:
    listeners = f"PLAINTEXT://127.0.0.1:{node.port}"
    if node.votes:
        listeners += f",CONTROLLER://127.0.0.1:{node.controller_port}"
    if node.sasl_port:
        listeners += f",SASL://127.0.0.1:{node.sasl_port}"
    return {
        "process.roles": "broker,controller" if node.votes else "broker",
        "node.id": str(node.id),
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:{_protocol(cluster)}",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{one.controller_port}" for one in cluster.voters),
        "log.dirs": data,
    }


def _protocol(cluster: Layout) -> str:
    """Of the third port."""
    if not cluster.tls:
        return "SASL_PLAINTEXT"
    return "SASL_SSL" if cluster.users else "SSL"


def _security(cluster: Layout, keystore: str) -> dict[str, str]:
    found = dict(_PASSWORDS) if cluster.users else {}
    if cluster.tls:
        found |= {
            "listener.name.sasl.ssl.keystore.type": "PKCS12",
            "listener.name.sasl.ssl.keystore.location": keystore,
            "listener.name.sasl.ssl.keystore.password": keystore_password(cluster),
        }
    return found


def keystore_password(cluster: Layout) -> str:
    """The folder keeps others out, not this: Java wants one."""
    return cluster.cluster_id


_PASSWORDS = {
    "sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "listener.name.sasl.scram-sha-512.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
}
# A dead broker is fenced after 3 s and not after 9 s, and members of groups are balanced within a second or so: in a
# test of failures these waits are most of its time.
_QUICK = {
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
}
# Threads and partitions of Kafka's own topics for a machine of two cores that has other things to do.
_SMALL = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "2",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "1",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "log.index.size.max.bytes": "1048576",
}


def _replication(cluster: Layout, node: Node) -> dict[str, str]:
    factor = str(min(3, len(cluster.nodes)))
    in_sync = "2" if len(cluster.nodes) >= 3 else "1"
    return {
        **({"default.replication.factor": factor} if node.votes else {}),  # the controllers' to say
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": factor,
        "transaction.state.log.replication.factor": factor,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": factor,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def _escaped(value: str) -> str:
    """As java.util.Properties reads it back: a backslash is written twice, what is not printable ASCII by its number,
    and so is a space, which would be skipped where it comes first."""
    return "".join(_escape(c) for c in value)


def _escape(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isascii() and character.isprintable() and character != " ":
        return character
    return "".join(f"\\u{unit:04x}" for unit in _utf16(character))


def _utf16(character: str) -> Iterator[int]:
    raw = character.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(raw[i : i + 2]) for i in range(0, len(raw), 2))


def format_command(java: str, libs: str, cluster: Layout, node: Node, settings: str) -> tuple[str, ...]:
    """Writes the identity of cluster and node on an empty disk; the voters' addresses too where the node votes."""
    users = [
        word
        for name, password in cluster.users.items()
        for word in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")
    ]
    voters = ",".join(f"{one.id}@127.0.0.1:{one.controller_port}:{one.directory_id}" for one in cluster.voters)
    # C1 alone: it is over before C2 would have paid.
    return (
        java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData",
        "-cp", f"{libs}/*", "kafka.tools.StorageTool", "format", "-t", cluster.cluster_id, "-c", settings,
        *(("--initial-controllers", voters) if node.votes else ("--no-initial-controllers",)), *users,
    )  # fmt: skip


def node_command(java: str, libs: str, cluster: Layout, folder: str, *, logging: str) -> tuple[str, ...]:
    """Runs a node. folder: its own, which marks its process. logging: log4j's configuration."""
    return (
        java, f"{MARK}{folder}", f"-Xmx{cluster.heap_mb}m", "-Xms64m", "-XX:+UseG1GC",
        # The second compiler takes most of a processor at first; what lives for longer than a minute gains by it: its
        # requests cost half.
        *(() if cluster.long_lived else ("-XX:TieredStopAtLevel=1",)),
        # Nothing of a node lies outside its folder, so that a kill leaves nothing behind: no counters, no native
        # libraries in the machine's folder for temporary files.
        "-XX:-UsePerfData", f"-Djava.io.tmpdir={folder}/tmp", "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={logging}",
        "-cp", f"{libs}/*", "kafka.Kafka", f"{folder}/server.properties",
    )  # fmt: skip


def certificate_commands(keytool: str, place: str, password: str) -> tuple[tuple[str, ...], ...]:
    """Make a key and a certificate for 127.0.0.1 that signs itself, then write the certificate for clients."""
    store = ("-alias", "node", "-keystore", f"{place}/keystore.p12", "-storetype", "PKCS12", "-storepass", password)
    names = ("-ext", "san=ip:127.0.0.1,dns:localhost", "-ext", "bc:c")
    make = (keytool, "-genkeypair", *store, "-keyalg", "EC", "-dname", "CN=headrace test", *names, "-validity", "3650")
    return make, (keytool, "-exportcert", "-rfc", *store, "-file", f"{place}/ca.pem")


def marked_folder(arguments: list[str]) -> str:
    """The folder of the node whose process has this command line; "" where it is no node of ours. What only carries
    a node's command line further, as its launcher does behind a "--", is no node."""
    marks = [one.removeprefix(MARK) for one in arguments if one.startswith(MARK)]
    if len(marks) != 1 or "--" in arguments or arguments[-2:] != ["kafka.Kafka", f"{marks[0]}/server.properties"]:
        return ""
    return marks[0]


def java_version(text: str) -> int:
    """The major version that `java -version` says; 0 where it says none. Java 8 called itself 1.8."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found[1]) if found else 0


def not_ready(cluster: Layout, answers: Mapping[int, ClusterView | None]) -> list[str]:
    """Why the cluster cannot be used yet, one sentence a node; nothing where every node answers, belongs to this
    cluster and sees every broker registered and unfenced. answers: by node, None where it gave none."""
    wanted = frozenset(node.id for node in cluster.nodes)
    reasons = []
    for node in cluster.nodes:
        answer = answers.get(node.id)
        if answer is None:
            reasons.append(f"node {node.id} does not answer on port {node.port}")
        elif answer.cluster_id != cluster.cluster_id:
            reasons.append(f"what answers on port {node.port} is a node of another cluster, {answer.cluster_id}")
        elif not wanted <= answer.brokers:
            reasons.append(f"node {node.id} does not see {numbered(wanted - answer.brokers)} yet")
    return reasons


def not_in_sync(answers: Iterable[ClusterView]) -> list[str]:
    """The partitions that lack a leader or a replica in sync, as somebody sees them; each once, sorted."""
    lacking = set()
    for answer in answers:
        for one in answer.partitions:
            missing = frozenset(one.replicas) - frozenset(one.in_sync)
            if one.leader < 0:
                lacking.add(f"{one.topic}-{one.index} has no leader")
            elif missing:
                lacking.add(f"{one.topic}-{one.index} lacks {numbered(missing)}")
    return sorted(lacking)


def numbered(nodes: Collection[int]) -> str:
    """ "node 2", "nodes 2, 3"."""
    return f"node{'s' if len(nodes) != 1 else ''} {', '.join(str(one) for one in sorted(nodes))}"


def telling(log: Sequence[str], *, lines_max: int) -> list[str]:
    """The lines of a node's log that say why it ended: from the first error on, without the places in its code; the
    last lines where it calls nothing an error."""
    first = next((i for i, line in enumerate(log) if re.search(r"\b(ERROR|FATAL)\b|^Error|Exception\b", line)), None)
    if first is None:
        return list(log[-lines_max:])
    return [line for line in log[first:] if not line.startswith(("\tat ", "\t... "))][:lines_max]
