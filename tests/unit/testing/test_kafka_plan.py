"""What the nodes of a Kafka cluster are told, and what their answers mean. No JVM."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import UsageError
from headrace.testing.kafka.define import (
    BROKERS_MAX,
    PORTS_A_BLOCK,
    PORTS_FROM,
    PORTS_TO,
    Layout,
    brokers_checked,
    name_checked,
    users_checked,
    voters_count,
)
from headrace.testing.kafka.plan import (
    ClusterView,
    PartitionView,
    format_command,
    java_version,
    layout,
    marked_folder,
    node_command,
    not_in_sync,
    not_ready,
    numbered,
    port_blocks,
    properties,
    telling,
)

DATA = "/tmp/c/node-1/data"


def made(brokers: int, settings: Mapping[str, str] | None = None, users: Mapping[str, str] | None = None) -> Layout:
    ids = [f"{i:022d}" for i in range(brokers + 1)]
    return layout("c", brokers, ports_from=PORTS_FROM, ids=ids, settings=settings or {}, users=users or {}, heap_mb=384)


def told(cluster: Layout, node: int, data: str = DATA) -> dict[str, str]:
    """server.properties as java.util.Properties reads it."""
    found = {}
    for line in properties(cluster, cluster.nodes[node - 1], data).splitlines():
        name, _, value = line.partition("=")
        found[name] = _unescaped(value)
    return found


def _unescaped(value: str) -> str:
    """java.util.Properties.loadConvert: what stands behind a backslash, UTF-16 units put together."""
    units: list[int] = []
    rest = iter(value)
    for c in rest:
        if c != "\\":
            units.append(ord(c))
            continue
        match next(rest):
            case "u":
                units.append(int("".join(itertools.islice(rest, 4)), 16))
            case other:
                units.append(ord(other))
    return b"".join(unit.to_bytes(2, "big") for unit in units).decode("utf-16-be")


@pytest.mark.parametrize(("brokers", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (8, 3)])
def test_an_odd_count_of_nodes_votes(brokers: int, voters: int) -> None:
    cluster = made(brokers)
    assert voters_count(brokers) == voters
    assert [node.votes for node in cluster.nodes] == [True] * voters + [False] * (brokers - voters)


@pytest.mark.parametrize("brokers", [-1, 0, BROKERS_MAX + 1])
def test_a_count_of_brokers_that_cannot_be_is_refused(brokers: int) -> None:
    with pytest.raises(UsageError) as caught:
        brokers_checked(brokers)
    assert caught.value.code == "HR-0910"
    assert str(brokers) in caught.value.message


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "../a", "a/b", "a.lock", "x" * 41, "ü"])
def test_a_name_that_is_no_folders_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        name_checked(name)
    assert caught.value.code == "HR-0910"


@pytest.mark.parametrize("name", ["a", "dev", "a-b-1", "0", "x" * 40])
def test_a_name_of_letters_digits_and_dashes_is_taken(name: str) -> None:
    assert name_checked(name) == name


@pytest.mark.parametrize("brokers", range(1, BROKERS_MAX + 1))
def test_a_cluster_keeps_to_its_block_of_ports(brokers: int) -> None:
    assert len(made(brokers).ports) == brokers + voters_count(brokers)
    ports = made(brokers, users={"app": "secret"}).ports
    assert len(set(ports)) == len(ports) == 2 * brokers + voters_count(brokers)
    assert all(PORTS_FROM <= port < PORTS_FROM + PORTS_A_BLOCK for port in ports)


def test_nodes_listen_on_loopback_only() -> None:
    for node in (1, 4):
        for name, value in told(made(4), node).items():
            if name.endswith("listeners") and "://" in value:
                assert all(one.split("://")[1].startswith("127.0.0.1:") for one in value.split(",")), (name, value)


def test_a_node_that_votes_is_a_controller_too_and_all_know_the_voters() -> None:
    cluster = made(4)
    voter, other = told(cluster, 1), told(cluster, 4)
    assert (voter["process.roles"], other["process.roles"]) == ("broker,controller", "broker")
    assert "CONTROLLER://" in voter["listeners"] and "CONTROLLER://" not in other["listeners"]
    wanted = ",".join(f"127.0.0.1:{node.controller_port}" for node in cluster.nodes[:3])
    assert voter["controller.quorum.bootstrap.servers"] == other["controller.quorum.bootstrap.servers"] == wanted


@pytest.mark.parametrize(("brokers", "factor", "in_sync"), [(1, "1", "1"), (2, "2", "1"), (3, "3", "2"), (5, "3", "2")])
def test_three_brokers_survive_the_loss_of_one(brokers: int, factor: str, in_sync: str) -> None:
    found = told(made(brokers), 1)
    assert {value for name, value in found.items() if name.endswith("replication.factor")} == {factor}
    assert {value for name, value in found.items() if "min.isr" in name or "insync" in name} == {in_sync}


def test_users_have_ports_of_their_own_and_are_told_to_every_disk() -> None:
    cluster = made(2, users={"app": "secret", "other": "x"})
    assert cluster.sasl_bootstrap == ",".join(f"127.0.0.1:{node.sasl_port}" for node in cluster.nodes)
    for node in cluster.nodes:
        found = told(cluster, node.id)
        assert f"SASL://127.0.0.1:{node.sasl_port}" in found["listeners"].split(",")
        assert found["sasl.enabled.mechanisms"] == "SCRAM-SHA-512"
        command = format_command("/java", "/libs", cluster, node, "/p")
        assert command[-4:] == (
            "--add-scram", "SCRAM-SHA-512=[name=app,password=secret]",
            "--add-scram", "SCRAM-SHA-512=[name=other,password=x]",
        )  # fmt: skip
    assert made(2).sasl_bootstrap == ""
    assert not any("sasl" in name or "SASL://" in value for name, value in told(made(2), 1).items())


@pytest.mark.parametrize("users", [{"a,b": "x"}, {"a": ""}, {"a": "x]"}, {"a": "x y"}])
def test_users_that_the_format_tool_would_misread_are_refused(users: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        users_checked(users)
    assert caught.value.code == "HR-0910"


def test_given_settings_win() -> None:
    found = told(made(1, {"num.io.threads": "9", "log.retention.ms": "1000"}), 1)
    assert (found["num.io.threads"], found["log.retention.ms"]) == ("9", "1000")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_path_reaches_java_as_it_is(name: str) -> None:
    text = properties(made(1), made(1).nodes[0], f"/{name}")
    assert all(line.isascii() and line.isprintable() for line in text.split("\n"))
    assert told(made(1), 1, f"/{name}")["log.dirs"] == f"/{name}"


@given(st.integers(0, 2**32), st.sets(st.integers(0, 499)))
def test_every_block_that_is_not_taken_is_tried_once(first: int, taken: set[int]) -> None:
    every = set(range(PORTS_FROM, PORTS_TO, PORTS_A_BLOCK))
    gone = {PORTS_FROM + one * PORTS_A_BLOCK for one in taken}
    tried = list(port_blocks(first, gone))
    assert len(tried) == len(set(tried))
    assert set(tried) == every - gone


def test_two_that_begin_elsewhere_do_not_meet_first() -> None:
    assert next(port_blocks(1, set())) != next(port_blocks(2, set()))


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_292"', 8),
        ('openjdk version "21-ea" 2023-09-19', 21),
        ('openjdk version "11.0.2" 2019-01-15\nOpenJDK Runtime', 11),
        ("Picked up JAVA_TOOL_OPTIONS: -Dx\nopenjdk version \"25\" 2025-09-16", 25),
        ("bash: no such file", 0),
        ("", 0),
    ],
)  # fmt: skip
def test_javas_version_is_read(said: str, version: int) -> None:
    assert java_version(said) == version


def test_a_node_is_known_by_its_command_line_and_nothing_else_is() -> None:
    folder = "/tmp/c/node-1"
    cluster = made(1)
    command = list(node_command("/java", "/libs", cluster, folder, logging="/l.xml"))
    assert marked_folder(command) == folder
    assert marked_folder(["python", "launcher.py", "detach", "log", "folder", "--", *command]) == ""
    assert marked_folder(["vim", *command, "other"]) == ""
    assert marked_folder(command[:-1] + ["/tmp/c/node-2/server.properties"]) == ""
    assert marked_folder([*command[:2], "-Dheadrace.kafka.node=/tmp/d/node-1", *command[2:]]) == ""
    assert marked_folder(["grep", command[1]]) == ""
    assert marked_folder([]) == ""
    formatting = format_command("/java", "/libs", cluster, cluster.nodes[0], f"{folder}/format.properties")
    assert marked_folder(list(formatting)) == ""


def test_voters_are_told_to_the_disks_of_voters() -> None:
    cluster = made(4)
    for node in cluster.nodes:
        command = format_command("/java", "/libs", cluster, node, "/p")
        if node.votes:
            voters = command[command.index("--initial-controllers") + 1].split(",")
            assert voters == [f"{one.id}@127.0.0.1:{one.controller_port}:{one.directory_id}" for one in cluster.voters]
        else:
            assert "--initial-controllers" not in command


def seen(cluster: Layout, *brokers: int, id: str | None = None) -> ClusterView:
    return ClusterView(cluster_id=id or cluster.cluster_id, brokers=frozenset(brokers), partitions=())


def test_a_cluster_is_ready_when_every_node_sees_every_broker() -> None:
    cluster = made(3)
    whole = seen(cluster, 1, 2, 3)
    assert not_ready(cluster, {1: whole, 2: whole, 3: whole}) == []
    assert not_ready(cluster, {1: whole, 2: None, 3: whole}) == [
        f"node 2 does not answer on port {cluster.nodes[1].port}"
    ]
    assert not_ready(cluster, {1: whole, 2: whole, 3: seen(cluster, 3)}) == ["node 3 does not see nodes 1, 2 yet"]
    assert not_ready(cluster, {}) == [f"node {n.id} does not answer on port {n.port}" for n in cluster.nodes]
    stranger = not_ready(cluster, {1: whole, 2: whole, 3: seen(cluster, 1, 2, 3, id="x" * 22)})
    assert len(stranger) == 1 and "another cluster" in stranger[0]


def test_a_partition_without_leader_or_replica_is_not_in_sync() -> None:
    def view(*partitions: PartitionView) -> ClusterView:
        return ClusterView(cluster_id="c", brokers=frozenset(), partitions=partitions)

    whole = PartitionView(topic="t", index=0, leader=1, replicas=(1, 2, 3), in_sync=(3, 1, 2))
    lacking = PartitionView(topic="t", index=1, leader=1, replicas=(1, 2, 3), in_sync=(1,))
    leaderless = PartitionView(topic="t", index=2, leader=-1, replicas=(1,), in_sync=(1,))
    assert not_in_sync([view(whole), view(whole)]) == []
    assert not_in_sync([view(whole, lacking), view(lacking, leaderless)]) == [
        "t-1 lacks nodes 2, 3",
        "t-2 has no leader",
    ]


def test_the_telling_lines_begin_with_the_first_error() -> None:
    log = ["INFO a", "ERROR it broke (x)", "java.lang.X: why", "\tat a.b(c)", "\t... 3 more", "Caused by: y", "INFO z"]
    assert telling(log, lines_max=9) == ["ERROR it broke (x)", "java.lang.X: why", "Caused by: y", "INFO z"]
    assert telling(log, lines_max=2) == ["ERROR it broke (x)", "java.lang.X: why"]
    assert telling(["a", "b", "c"], lines_max=2) == ["b", "c"]
    assert telling(["Error: Could not find or load main class kafka.Kafka"], lines_max=2) != []
    assert telling([], lines_max=2) == []


def test_nodes_are_numbered_from_one_and_have_ports_and_ids_in_order() -> None:
    cluster = made(4, users={"app": "secret"})
    assert cluster.cluster_id == f"{0:022d}"
    assert [(node.id, node.directory_id, node.port - PORTS_FROM) for node in cluster.nodes] == [
        (index + 1, f"{index + 1:022d}", index) for index in range(4)
    ]
    controllers = [node.controller_port and node.controller_port - PORTS_FROM for node in cluster.nodes]
    assert controllers == [BROKERS_MAX, BROKERS_MAX + 1, BROKERS_MAX + 2, 0]
    assert [node.sasl_port - PORTS_FROM for node in cluster.nodes] == [2 * BROKERS_MAX + index for index in range(4)]


def test_blocks_are_tried_upwards_from_the_first_and_around() -> None:
    count = (PORTS_TO - PORTS_FROM) // PORTS_A_BLOCK
    blocks = [(block - PORTS_FROM) // PORTS_A_BLOCK for block in port_blocks(count - 2, ())]
    assert blocks == [count - 2, count - 1, *range(count - 2)]


def test_controllers_alone_are_told_the_default_factor() -> None:
    voter, other = told(made(4), 1), told(made(4), 4)
    assert voter["default.replication.factor"] == "3" and "default.replication.factor" not in other
    assert (voter["min.insync.replicas"], told(made(2), 1)["min.insync.replicas"]) == ("2", "1")


def test_a_space_is_escaped_and_a_letter_is_not() -> None:
    cluster = made(1, settings={"a": " b"})
    assert "a=\\u0020b" in properties(cluster, cluster.nodes[0], DATA).splitlines()


@pytest.mark.parametrize(("nodes", "said"), [([2], "node 2"), ([3, 2], "nodes 2, 3"), ([], "nodes ")])
def test_nodes_are_named_in_order(nodes: list[int], said: str) -> None:
    assert numbered(nodes) == said
