"""`ConfluentClient` where things are wrong: credentials, brokers that are down, hang or die, records too large. Each is
said in time and by its code, and what is unknown is never followed by more."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.clients.kafka.define import PASSWORD_VARIABLE, KafkaSettings
from headrace.clients.kafka.port import Fetched, Fetcher, KafkaClient, Outgoing, Place
from headrace.core.errors import FencedError, HeadraceError, LogError, UsageError
from headrace.core.times import Duration
from headrace.testing.kafka import KafkaCluster, Machine

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

# What a promise of 10 s may take on a machine that does other things.
WITHIN_S = 10.0
RIGHT, WRONG = "right-4711", "wrong-0815"
A_WHILE = Duration.parse("200ms")


@pytest.fixture(scope="module")
def guarded(kafka_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Asks for passwords, and lets those who have one do nothing but what they were granted: "headrace" is a super
    user, "guest" none."""
    folder = Path(tmp_path_factory.mktemp("guarded")) / "cluster"
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:headrace",
        "allow.everyone.if.no.acl.found": "false",
    }
    users = {"headrace": RIGHT, "guest": RIGHT}
    with KafkaCluster(folder, machine=kafka_machine, settings=settings, users=users) as cluster:
        yield cluster


@pytest.fixture
def client_of() -> Iterator[Callable[..., KafkaClient]]:
    from headrace.clients.kafka.confluent import ConfluentClient

    made: list[KafkaClient] = []

    def make(url: str, password: str = RIGHT) -> KafkaClient:
        made.append(ConfluentClient(KafkaSettings.parse(url), {PASSWORD_VARIABLE: password}))
        return made[-1]

    yield make
    for client in made:
        client.close()


def new_place(client: KafkaClient, **settings: str) -> Place:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return Place(client.create(f"t{uuid.uuid4().hex[:12]}", partitions=1, settings=named).name, 0)


def records(place: Place, *values: bytes) -> list[Outgoing]:
    return [Outgoing(place, None, value) for value in values]


def fetched(fetcher: Fetcher, *, seconds: float = 30) -> list[bytes | None]:
    """Until the end is told."""
    values: list[bytes | None] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found: list[Fetched] = [*fetcher.fetch(timeout=A_WHILE)]
        values += [record.value for each in found for record in each.records]
        if any(each.at_end for each in found):
            return values
    raise AssertionError(f"not at the end after {seconds} s: {values}")


def refused(code: str, call: Callable[[], object], *, within_s: float = WITHIN_S) -> HeadraceError:
    """The error. The call may have to be made again until it comes, as of what is asked while nothing comes."""
    begun = time.monotonic()
    with pytest.raises(HeadraceError) as caught:
        while time.monotonic() < begun + within_s:
            call()
    assert caught.value.code == code, str(caught.value)
    assert time.monotonic() - begun < within_s + 1, f"said after {time.monotonic() - begun:.1f} s"
    return caught.value


def all_refused(code: str, *calls: Callable[[], object]) -> list[HeadraceError]:
    """Each in a thread of its own, so that what waits waits together."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: refused(code, call), calls))


def test_a_password_opens_and_a_wrong_one_is_said_in_time(
    guarded: KafkaCluster, client_of: Callable[..., KafkaClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"kafka://headrace@{guarded.sasl_bootstrap}"
    right = client_of(url)
    place = new_place(right)
    assert right.sender().send(records(place, b"a")).offsets == [0]
    assert right.cluster().id == guarded.cluster_id
    wrong = client_of(url, WRONG)
    fetcher = wrong.fetcher()
    fetcher.seek(place, 0)
    for error in all_refused(
        "HR-0341",
        wrong.cluster,
        lambda: wrong.spans([place]),
        wrong.sender,
        lambda: wrong.sender(transactional_id="x"),
        lambda: fetcher.fetch(timeout=A_WHILE),
        lambda: wrong.member(f"g{uuid.uuid4().hex}", [place.topic]),
    ):
        assert not error.retryable and "user 'headrace'" in error.message and WRONG not in str(error)
    fetcher.close()
    assert WRONG not in caplog.text and RIGHT not in caplog.text
    refused("HR-0341", client_of(f"kafka://nobody@{guarded.sasl_bootstrap}").cluster)


def test_a_password_may_lie_in_a_file(
    guarded: KafkaCluster, client_of: Callable[..., KafkaClient], tmp_path: Path
) -> None:
    file = tmp_path / "password"
    url = f"kafka://headrace@{guarded.sasl_bootstrap}?password_file={file}"
    with pytest.raises(UsageError, match="cannot be read"):
        client_of(url)
    file.write_text(RIGHT + "\n")
    assert client_of(url, WRONG).cluster().brokers == 1


def test_without_a_password_it_says_where_it_looked() -> None:
    from headrace.clients.kafka.confluent import ConfluentClient

    with pytest.raises(UsageError) as caught:
        ConfluentClient(KafkaSettings.parse("kafka://headrace@127.0.0.1:9092"), {})
    assert caught.value.code == "HR-0350" and PASSWORD_VARIABLE in caught.value.detail


def test_what_is_not_granted_is_refused(guarded: KafkaCluster, client_of: Callable[..., KafkaClient]) -> None:
    place = new_place(client_of(f"kafka://{guarded.bootstrap}"))
    guest = client_of(f"kafka://guest@{guarded.sasl_bootstrap}")
    assert guest.cluster().topics == {}
    fetcher = guest.fetcher()
    fetcher.seek(place, 0)
    for call in (
        lambda: guest.spans([place]),
        lambda: guest.create("mine", partitions=1, settings={}),
        lambda: guest.delete(place.topic),
        lambda: guest.alter(place.topic, settings={"retention.ms": "1"}),
        lambda: guest.group_offsets("g", [place]),
        lambda: guest.sender(transactional_id="x"),
        lambda: guest.sender().send(records(place, b"a")),
        lambda: fetcher.fetch(timeout=A_WHILE),
        lambda: guest.member("g", [place.topic]).poll(timeout=A_WHILE),
    ):
        error = refused("HR-0342", call)
        assert "user 'guest' may not" in error.message
    fetcher.close()


def test_no_broker_at_the_start_is_said_in_time(client_of: Callable[..., KafkaClient]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = client_of(f"kafka://127.0.0.1:{nobody.getsockname()[1]}")
        fetcher = client.fetcher()
        fetcher.seek(Place("t", 0), 0)
        for error in all_refused(
            "HR-0340",
            client.cluster,
            client.sender,
            lambda: client.spans([Place("t", 0)]),
            lambda: client.member("g", ["t"]),
            lambda: fetcher.fetch(timeout=A_WHILE),
        ):
            assert error.retryable and "Connection refused" in error.detail
        fetcher.close()


def test_plain_text_to_what_is_no_broker_is_said_in_time(client_of: Callable[..., KafkaClient]) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        assert refused("HR-0340", client_of(f"kafka://127.0.0.1:{mute.getsockname()[1]}").cluster).retryable


def test_a_sender_sends_on_after_what_was_refused(guarded: KafkaCluster, client_of: Callable[..., KafkaClient]) -> None:
    """What is certain ends no sender. The limit is lowered behind the client's back, so that the broker refuses."""
    client, other = client_of(f"kafka://{guarded.bootstrap}"), client_of(f"kafka://{guarded.bootstrap}")
    place, sender = new_place(client), client.sender()
    assert sender.send(records(place, b"a" * 5_000)).offsets == [0]
    other.alter(place.topic, settings={"max.message.bytes": "2000"})
    deadline, sent = time.monotonic() + WITHIN_S, 1
    with pytest.raises(LogError) as caught:
        while time.monotonic() < deadline:  # a broker learns of its new limit a moment after it was taken
            assert sender.send(records(place, bytes(range(256)) * 20)).offsets == [sent]
            sent += 1
    assert caught.value.code == "HR-0343"
    assert sender.send(records(place, b"b")).offsets == [sent]
    other.delete(place.topic)
    with pytest.raises(HeadraceError) as gone:
        sender.send(records(place, b"c"))
    assert gone.value.code in ("HR-0302", "HR-0311")


def test_a_topic_that_goes_while_it_is_read_is_said(
    guarded: KafkaCluster, client_of: Callable[..., KafkaClient]
) -> None:
    client = client_of(f"kafka://{guarded.bootstrap}")
    place, fetcher = new_place(client), client.fetcher()
    fetcher.seek(place, 0)
    assert fetched(fetcher) == []
    client.delete(place.topic)
    refused("HR-0302", lambda: fetcher.fetch(timeout=A_WHILE), within_s=20)
    fetcher.close()


@pytest.mark.timeout(600)
def test_over_tls(
    kafka_machine: Machine, tmp_path: Path, client_of: Callable[..., KafkaClient], caplog: pytest.LogCaptureFixture
) -> None:
    users = {"headrace": RIGHT}
    with KafkaCluster(tmp_path / "cluster", machine=kafka_machine, users=users, tls=True) as cluster:
        assert cluster.tls_bootstrap == cluster.sasl_bootstrap != cluster.bootstrap
        url = f"kafka+tls://headrace@{cluster.tls_bootstrap}?ca={cluster.ca}"
        client = client_of(url)
        place, fetcher = new_place(client), client.fetcher()
        assert client.sender().send(records(place, b"over TLS")).offsets == [0]
        fetcher.seek(place, 0)
        assert fetched(fetcher) == [b"over TLS"]
        fetcher.close()
        untrusting = client_of(f"kafka+tls://headrace@{cluster.tls_bootstrap}")
        _, untrusted = all_refused("HR-0341", client_of(url, WRONG).cluster, untrusting.cluster)
        assert "certificate" in untrusted.detail
        plain = client_of(f"kafka://headrace@{cluster.tls_bootstrap}")
        mistaken = client_of(f"kafka+tls://headrace@{cluster.bootstrap}?ca={cluster.ca}")
        for error in all_refused("HR-0340", plain.cluster, mistaken.cluster):
            assert "TLS" in error.hint
    with pytest.raises(UsageError) as caught:
        client_of(f"kafka+tls://headrace@127.0.0.1:1?ca={tmp_path / 'none.pem'}").cluster()
    assert caught.value.code == "HR-0350" and "none.pem" in caught.value.detail
    assert RIGHT not in caplog.text


def test_tls_without_passwords_by_the_command(
    kafka_machine: Machine, tmp_path: Path, client_of: Callable[..., KafkaClient]
) -> None:
    folder = tmp_path / "clusters"
    command = [sys.executable, "-c", "from headrace.cli.main import main; main()", "dev", "kafka"]
    environment = {**os.environ, "HEADRACE_DEV_DIR": str(folder)}
    try:
        up = [*command, "up", "--tls", "--output", "json"]
        said = json.loads(subprocess.run(up, env=environment, check=True, capture_output=True).stdout)
        client = client_of(f"kafka+tls://{said['tls_bootstrap']}?ca={said['ca']}")
        assert client.cluster().id == said["cluster_id"]
    finally:
        subprocess.run([*command, "down", "--delete"], env=environment, check=True, capture_output=True)
    assert not (folder / "dev").exists()


@pytest.mark.timeout(600)
def test_a_broker_that_dies_and_comes_back(
    kafka_machine: Machine, tmp_path: Path, client_of: Callable[..., KafkaClient]
) -> None:
    with KafkaCluster(tmp_path / "cluster", machine=kafka_machine) as cluster:
        client = client_of(f"kafka://{cluster.bootstrap}")
        place = new_place(client)
        sender, transactional, fetcher = client.sender(), client.sender(transactional_id="x"), client.fetcher()
        assert sender.send(records(place, b"a")).offsets == [0]
        fetcher.seek(place, 0)
        assert fetched(fetcher) == [b"a"]
        transactional.begin()
        transactional.send(records(place, b"in a transaction"))

        cluster.pause(1)
        unknown = refused("HR-0311", lambda: sender.send(records(place, b"unknown", b"unknown too")), within_s=25)
        assert unknown.retryable
        cluster.kill(1)
        with pytest.raises(FencedError):
            sender.send(records(place, b"never"))
        with ThreadPoolExecutor(1) as pool:
            committing = pool.submit(transactional.commit)
            all_refused("HR-0340", client.cluster, client.sender, lambda: fetcher.fetch(timeout=A_WHILE))
            assert isinstance(error := committing.exception(), LogError)
        assert error.code in ("HR-0311", "HR-0345")
        cluster.start(1)
        cluster.wait_ready()

        newer = client.sender(transactional_id="x")  # ends what was left open
        again = client.sender()
        (offset,) = again.send(records(place, b"b")).offsets
        values = []
        while b"b" not in values:
            values += fetched(fetcher)
        seen = [value for value in values if value not in (b"a", b"b", b"in a transaction")]
        assert seen in ([], [b"unknown"], [b"unknown", b"unknown too"]), "the first ones, and nothing behind"
        newer.begin()
        newer.send(records(place, b"c"))
        newer.commit()
        values = []
        while b"c" not in values:
            values += fetched(fetcher)
        assert values == [b"c"] and client.spans([place])[0].end > offset + 1
        fetcher.close()
        newer.close()
        again.close()
