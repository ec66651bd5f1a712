"""A Kafka cluster's folder, its state and its ports. No JVM."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from headrace.testing.kafka.define import PORTS_A_BLOCK, PORTS_FROM, PORTS_TO, KafkaClusterError, Layout
from headrace.testing.kafka.folder import (
    STATE,
    make_layout,
    node_data,
    ports_in_use,
    private_folder,
    read_layout,
    remove,
    usable_folder,
)
from headrace.testing.kafka.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(cache=tmp_path / "cache")


def make(folder: Path, machine: Machine, brokers: int = 1) -> Layout:
    return make_layout(
        private_folder(folder),
        folder.name,
        brokers,
        machine=machine,
        settings={"a": "b"},
        users={"a": "x"},
        heap_mb=128,
    )


def test_a_state_is_read_as_it_was_written(tmp_path: Path, machine: Machine) -> None:
    made = make(tmp_path / "c", machine, 5)
    assert read_layout(tmp_path / "c") == made
    assert len({made.cluster_id, *(node.directory_id for node in made.nodes)}) == 6
    assert read_layout(tmp_path / "nothing") is None
    assert [one.name for one in (tmp_path / "c").iterdir()] == [STATE]


def changed(raw: bytes, *path: str | int, value: object) -> bytes:
    state: Any = json.loads(raw)
    inner = state
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return json.dumps(state).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"\xff\xfe" + raw,
        lambda raw: b"[]",
        lambda raw: b"{}",
        lambda raw: changed(raw, "format", value=2),
        lambda raw: changed(raw, "layout", "nodes", value=[]),
        lambda raw: changed(raw, "layout", "nodes", 0, "port", value="x"),
        lambda raw: changed(raw, "layout", "nodes", 0, "port", value=22),
        lambda raw: changed(raw, "layout", "nodes", 0, "id", value=4),
        lambda raw: changed(raw, "layout", "nodes", 0, "controller_port", value=0),
    ],
)
def test_a_damaged_state_is_an_error_that_names_the_file(tmp_path: Path, machine: Machine, damage: Any) -> None:
    made = make(tmp_path / "c", machine)
    file = tmp_path / "c" / STATE
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(KafkaClusterError) as caught:
        read_layout(tmp_path / "c")
    assert caught.value.code == "HR-0916"
    assert str(tmp_path / "c") in caught.value.message
    assert "--name c" in caught.value.hint
    # Its nodes may run, so it keeps its ports; the register is what knows them.
    register = tmp_path / "cache" / "kafka" / "ports"
    make(tmp_path / "d", machine)
    assert (register / str(made.ports_from)).read_text() == str(tmp_path / "c")


def test_clusters_have_ports_of_their_own_and_keep_them(tmp_path: Path, machine: Machine) -> None:
    blocks = [make(tmp_path / f"c{i}", machine).ports_from for i in range(20)]
    assert len(set(blocks)) == 20
    assert all(
        PORTS_FROM <= block < PORTS_TO and block % PORTS_A_BLOCK == PORTS_FROM % PORTS_A_BLOCK for block in blocks
    )
    remove(tmp_path / "c0")
    assert make(tmp_path / "c0", machine).ports_from == blocks[0]


def test_a_port_that_somebody_listens_on_is_not_chosen(tmp_path: Path, machine: Machine) -> None:
    wanted = make(tmp_path / "c", machine).ports_from
    remove(tmp_path / "c")
    with socket.create_server(("127.0.0.1", wanted)):
        assert ports_in_use((wanted, wanted + 1)) == [wanted]
        assert make(tmp_path / "c", machine).ports_from != wanted
    assert ports_in_use((wanted,)) == []


CHOOSES = """
    import sys
    from pathlib import Path
    from headrace.testing.kafka.machine import Machine
    from headrace.testing.kafka.folder import make_layout, private_folder
    for i in range(15):
        folder = private_folder(Path(sys.argv[1]) / f"{sys.argv[2]}-{i}")
        machine = Machine(cache=Path(sys.argv[1]) / "cache")
        print(make_layout(folder, "c", 1, machine=machine, settings={}, users={}, heap_mb=64).ports_from)
"""


def test_processes_that_choose_at_once_choose_other_ports(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CHOOSES), str(tmp_path)]
    both = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    chosen = [line for one in both for line in one.communicate(timeout=60)[0].split()]
    assert [one.returncode for one in both] == [0, 0]
    assert len(set(chosen)) == len(chosen) == 30


def test_a_folder_is_private(tmp_path: Path) -> None:
    assert stat.S_IMODE(private_folder(tmp_path / "new").stat().st_mode) == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    assert stat.S_IMODE(private_folder(tmp_path / "open").stat().st_mode) == 0o700
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine").chmod(0o755)
    assert stat.S_IMODE(usable_folder(tmp_path / "mine").stat().st_mode) == 0o755


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "a,b"):
        with pytest.raises(KafkaClusterError) as caught:
            private_folder(folder)
        assert caught.value.code == "HR-0917"
        assert str(folder) in caught.value.message


def test_only_a_cluster_is_deleted(tmp_path: Path, machine: Machine) -> None:
    make(tmp_path / "c", machine)
    node_data(tmp_path / "c", 1).mkdir(parents=True)
    (tmp_path / "c" / "thesis.tex").write_text("")
    with pytest.raises(KafkaClusterError) as caught:
        remove(tmp_path / "c")
    assert "thesis.tex" in caught.value.detail
    assert node_data(tmp_path / "c", 1).is_dir()
    (tmp_path / "c" / "thesis.tex").unlink()
    remove(tmp_path / "c")
    assert not (tmp_path / "c").exists()
