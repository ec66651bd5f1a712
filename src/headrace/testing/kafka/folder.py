"""A cluster's folder: what lies where, the state that says how it was made, and its ports. Touches: that folder, the
register of ports in the cache.

    cluster.json        how it was made, written once
    tls/                certificates, where it has TLS
    node-N/data         its log, as Kafka keeps it; there from the moment it is whole
    node-N/node.log     what it says, all of its starts
    node-N/server.properties, node-N/tmp

It is private (0700): whoever can write into it can have code run by it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from headrace.core.errors import HeadraceError
from headrace.testing.kafka.define import (
    PORTS_A_BLOCK,
    PORTS_FROM,
    PORTS_TO,
    KafkaClusterError,
    Layout,
)
from headrace.testing.kafka.machine import Machine, locked, unusable
from headrace.testing.kafka.plan import layout, port_blocks
from headrace.testing.kafka.wire import kafka_uuid

STATE, CERTIFICATES = "cluster.json", "tls"
_FORMAT = 1


class _State(msgspec.Struct, kw_only=True):
    format: int
    layout: Layout


def usable_folder(folder: Path) -> Path:
    """The folder, absolute, made if it is not there (0700). Raises: KafkaClusterError HR-0917."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.resolve()
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("it cannot be written")
    except OSError as error:
        raise unusable(folder, error) from error
    if "," in str(folder):  # Kafka would read two folders
        raise KafkaClusterError("HR-0917", f"the folder {folder} cannot be used", detail="there is a comma in its name")
    return folder


def private_folder(folder: Path) -> Path:
    """The same, and nobody else's: others' rights are taken away. Raises: KafkaClusterError HR-0917."""
    folder = usable_folder(folder)
    try:
        found = folder.stat()
        if found.st_uid != os.getuid():
            raise PermissionError(f"it belongs to user {found.st_uid}")
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            folder.chmod(0o700)
    except OSError as error:
        raise unusable(folder, error) from error
    return folder


def node_folder(folder: Path, node: int) -> Path:
    return folder / f"node-{node}"


def node_data(folder: Path, node: int) -> Path:
    return node_folder(folder, node) / "data"


def node_log(folder: Path, node: int) -> Path:
    return node_folder(folder, node) / "node.log"


def read_layout(folder: Path) -> Layout | None:
    """How the cluster in this folder was made; None where there is none. Raises: KafkaClusterError HR-0916, HR-0917."""
    file = folder / STATE
    try:
        state = msgspec.json.decode(file.read_bytes(), type=_State)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unusable(folder, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(file, str(error)) from error
    if state.format != _FORMAT:
        raise _damaged(file, f"it has format {state.format}, this headrace knows {_FORMAT}")
    if wrong := _nonsense(state.layout):
        raise _damaged(file, wrong)
    return state.layout


def make_layout(
    folder: Path,
    name: str,
    brokers: int,
    *,
    machine: Machine,
    settings: Mapping[str, str],
    users: Mapping[str, str],
    heap_mb: int,
    long_lived: bool = False,
    tls: bool = False,
) -> Layout:
    """A new cluster in this folder, its ports chosen: free now, and kept from every other cluster of this user, running
    or stopped, until the folder goes. Raises: KafkaClusterError HR-0914 where there are none, HR-0917."""
    register = machine.cache / "kafka" / "ports"
    ids = [_new_uuid() for _ in range(brokers + 1)]
    with locked(register / "lock"):
        # Another user's clusters are not in our register, so the way begins somewhere else for each folder.
        for block in port_blocks(zlib.crc32(os.fsencode(folder)), _taken(register, folder)):
            made = layout(
                name,
                brokers,
                ports_from=block,
                ids=ids,
                settings=settings,
                users=users,
                heap_mb=heap_mb,
                long_lived=long_lived,
                tls=tls,
            )
            if not ports_in_use(made.ports):
                _write(register / str(block), os.fsencode(folder))
                _write(folder / STATE, msgspec.json.format(msgspec.json.encode(_State(format=_FORMAT, layout=made))))
                return made
    raise KafkaClusterError(
        "HR-0914",
        f"no {PORTS_A_BLOCK} free ports in a row from {PORTS_FROM} to {PORTS_TO}",
        hint="headrace dev kafka status, and down --delete for what is not needed any more",
    )


def ports_in_use(ports: tuple[int, ...]) -> list[int]:
    """Those on which another process listens."""
    found = []
    for port in ports:
        with socket.socket() as probe:
            # As Kafka binds: a port whose last connection is still remembered is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                found.append(port)
    return found


def remove(folder: Path) -> None:
    """Delete the cluster in this folder, and nothing that is none. Raises: KafkaClusterError HR-0917."""
    foreign = [
        one.name
        for one in folder.iterdir()
        if one.name not in (STATE, CERTIFICATES) and not one.name.startswith(("node-", ".new-"))
    ]
    if foreign:
        raise KafkaClusterError(
            "HR-0917", f"the folder {folder} is not deleted", detail=f"{min(foreign)!r} in it is no cluster's"
        )
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise unusable(folder, error) from error


def _taken(register: Path, own: Path) -> set[int]:
    """Blocks of other clusters that there are: their folder says the same block as the register."""
    found = set()
    for entry in register.iterdir():
        if not entry.name.isdigit():
            continue
        folder = Path(os.fsdecode(entry.read_bytes()))
        try:
            there = read_layout(folder)
        except HeadraceError:
            found.add(int(entry.name))  # it cannot be read: perhaps its nodes run
            continue
        if folder != own and there is not None and there.ports_from == int(entry.name):
            found.add(int(entry.name))
        else:
            entry.unlink()
    return found


def _write(file: Path, content: bytes) -> None:
    """Whole, or not at all."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = file.with_name(f".new-{file.name}")
        new.write_bytes(content)
        new.replace(file)
    except OSError as error:
        raise unusable(file.parent, error) from error


def _new_uuid() -> str:
    """As Kafka makes them: not beginning with '-', which a command line would take for an option."""
    while (made := kafka_uuid(secrets.token_bytes(16))).startswith("-"):
        pass
    return made


def _nonsense(found: Layout) -> str:
    """What cannot be so in a state that we wrote; "" where nothing is wrong."""
    if [node.id for node in found.nodes] != list(range(1, len(found.nodes) + 1)) or not found.nodes:
        return "its nodes are not numbered from 1 on"
    if not all(PORTS_FROM <= port < PORTS_TO for port in found.ports) or len(set(found.ports)) != len(found.ports):
        return "its ports are not its own"
    if not found.voters:
        return "no node votes"
    return ""


def _damaged(file: Path, why: str) -> KafkaClusterError:
    return KafkaClusterError(
        "HR-0916",
        f"the state of the cluster in {file.parent} cannot be read",
        detail=f"{file.name}: {why}",
        hint=f"headrace dev kafka down --name {file.parent.name} ends what runs; with --delete it can be made anew",
    )
