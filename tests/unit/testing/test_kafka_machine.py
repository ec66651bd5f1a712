"""Java and Kafka's libraries: found, refused, fetched once. Small programs stand on the PATH in their places."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from headrace.core.errors import MissingExtraError
from headrace.testing.kafka.define import KAFKA_VERSION, KafkaClusterError
from headrace.testing.kafka.machine import POM, Machine, java, libraries, libraries_folder

# A Maven that takes its time, and counts its runs.
FETCHES = f"""
    echo run >> {{runs}}
    for word in "$@"; do case "$word" in -DoutputDirectory=*) jars="${{{{word#*=}}}}" ;; esac; done
    mkdir "$jars"
    touch "$jars/first.jar"
    sleep {{seconds}}
    touch "$jars/kafka_2.13-{KAFKA_VERSION}.jar"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is the PATH, but for what a shell needs."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    return place


def program(place: Path, name: str, text: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    (place / name).chmod(0o755)


def quiet(_: str) -> None: ...


def test_java_is_found_on_the_path_and_in_its_home(programs: Path, tmp_path: Path) -> None:
    program(programs, "java", "echo 'openjdk version \"21.0.1\" 2023-10-17' >&2")
    program(tmp_path / "home" / "bin", "java", "echo 'openjdk version \"17.0.1\" 2021-10-17' >&2")
    assert java(Machine(cache=tmp_path)) == programs / "java"
    assert java(Machine(cache=tmp_path, java_home=str(tmp_path / "home"))) == tmp_path / "home" / "bin" / "java"


def test_no_java_is_an_error_that_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for machine, looked in (
        (Machine(cache=tmp_path), "the PATH"),
        (Machine(cache=tmp_path, java_home="/nothing"), "/nothing"),
    ):
        with pytest.raises(MissingExtraError) as caught:
            java(machine)
        assert caught.value.code == "HR-0911"
        assert looked in caught.value.detail
        assert "apt-get install openjdk-17" in caught.value.hint


@pytest.mark.parametrize(
    ("says", "seen"),
    [
        ("echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "is Java 11"),
        ("echo 'java version \"1.8.0_292\"' >&2", "is Java 8"),
        ("echo broken >&2; exit 1", "says 'broken'"),
        ("exit 3", "says ''"),
    ],
)
def test_a_java_that_is_too_old_is_an_error(programs: Path, tmp_path: Path, says: str, seen: str) -> None:
    program(programs, "java", says)
    with pytest.raises(MissingExtraError) as caught:
        java(Machine(cache=tmp_path))
    assert caught.value.code == "HR-0911"
    assert caught.value.message == f"Kafka {KAFKA_VERSION} needs Java 17 or newer"
    assert seen in caught.value.detail


def test_a_java_that_does_not_run_is_an_error(programs: Path, tmp_path: Path) -> None:
    (programs / "java").write_bytes(b"\x7fELF nothing")
    (programs / "java").chmod(0o755)
    with pytest.raises(MissingExtraError) as caught:
        java(Machine(cache=tmp_path))
    assert caught.value.code == "HR-0911"


def test_libraries_are_named_by_the_pom_and_fetched_once(programs: Path, tmp_path: Path) -> None:
    program(programs, "mvn", FETCHES.format(runs=tmp_path / "runs", seconds=0))
    machine = Machine(cache=tmp_path / "cache")
    said: list[str] = []
    for _ in range(2):
        assert libraries(machine, say=said.append) == libraries_folder(machine)
    assert (libraries_folder(machine) / f"kafka_2.13-{KAFKA_VERSION}.jar").is_file()
    assert (tmp_path / "runs").read_text() == "run\n"
    assert len(said) == 1 and "56 MB" in said[0]
    assert KAFKA_VERSION in POM.read_text()


LIBRARIES = """
    import sys
    from pathlib import Path
    from headrace.testing.kafka.machine import Machine, libraries
    libraries(Machine(cache=Path(sys.argv[1])), say=lambda _: None)
"""


def fetching(cache: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(LIBRARIES), str(cache)])


def test_two_processes_fetch_them_once(programs: Path, tmp_path: Path) -> None:
    program(programs, "mvn", FETCHES.format(runs=tmp_path / "runs", seconds=0.5))
    both = [fetching(tmp_path / "cache") for _ in range(2)]
    assert [one.wait(timeout=60) for one in both] == [0, 0]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_fetch_that_is_killed_leaves_nothing_to_be_taken_for_libraries(programs: Path, tmp_path: Path) -> None:
    program(programs, "mvn", FETCHES.format(runs=tmp_path / "runs", seconds=0.5))
    machine = Machine(cache=tmp_path / "cache")
    process = fetching(tmp_path / "cache")
    until = time.monotonic() + 60
    while not (tmp_path / "runs").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not libraries_folder(machine).exists()
    wanted = libraries(machine, say=quiet)
    assert (wanted / f"kafka_2.13-{KAFKA_VERSION}.jar").is_file()
    assert {one.name for one in wanted.parent.iterdir()} == {wanted.name, f"{wanted.name}.lock"}


@pytest.mark.parametrize(
    ("does", "seen"),
    [
        ("echo '[ERROR] Could not transfer artifact: Unknown host'; exit 1", "Unknown host"),
        ("exit 1", "Maven said nothing"),
        ("exit 0", "Maven said nothing"),  # done, it says, and no library is there
    ],
)
def test_a_fetch_that_fails_is_an_error_with_mavens_words(programs: Path, tmp_path: Path, does: str, seen: str) -> None:
    program(programs, "mvn", does)
    machine = Machine(cache=tmp_path / "cache")
    with pytest.raises(KafkaClusterError) as caught:
        libraries(machine, say=quiet)
    assert (caught.value.code, caught.value.retryable) == ("HR-0912", True)
    assert seen in caught.value.detail
    assert f"--file {POM}" in caught.value.hint
    assert not libraries_folder(machine).exists()
    assert [one.name for one in (tmp_path / "cache" / "kafka").iterdir()] == [f"{libraries_folder(machine).name}.lock"]


def test_no_maven_is_an_error_only_where_something_must_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = Machine(cache=tmp_path / "cache")
    with pytest.raises(MissingExtraError) as caught:
        libraries(machine, say=quiet)
    assert caught.value.code == "HR-0911"
    assert "apt-get install maven" in caught.value.hint
    libraries_folder(machine).mkdir(parents=True)
    assert libraries(machine, say=quiet) == libraries_folder(machine)


def test_a_cache_that_cannot_be_written_is_an_error(programs: Path, tmp_path: Path) -> None:
    program(programs, "mvn", "exit 0")
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", tmp_path / "a:b"):
        with pytest.raises(KafkaClusterError) as caught:
            libraries(Machine(cache=cache), say=quiet)
        assert caught.value.code == "HR-0917"
        assert str(cache) in caught.value.message
