"""A cluster's certificate: one, of all of its nodes, which signs itself, so that it is also what clients trust.
Touches: the cluster's folder, by the keytool that comes with Java.

    tls/keystore.p12    key and certificate, for the nodes
    tls/ca.pem          the certificate, for clients
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from headrace.testing.kafka.define import KafkaClusterError
from headrace.testing.kafka.folder import CERTIFICATES
from headrace.testing.kafka.plan import certificate_commands

_SECONDS_MAX = 120


def keystore(folder: Path) -> Path:
    return folder / CERTIFICATES / "keystore.p12"


def authority(folder: Path) -> Path:
    """What a client is given as `ca`."""
    return folder / CERTIFICATES / "ca.pem"


def make_certificate(folder: Path, java: Path, password: str) -> None:
    """Where there is none. Raises: KafkaClusterError HR-0915."""
    place = folder / CERTIFICATES
    if place.is_dir():
        return
    new = folder / f".new-{CERTIFICATES}"
    shutil.rmtree(new, ignore_errors=True)  # its making was broken off
    new.mkdir(mode=0o700)
    for command in certificate_commands(str(java.with_name("keytool")), str(new), password):
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False
            )
            said, status = (done.stdout + done.stderr).strip(), done.returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            said, status = str(error), -1
        if status != 0:
            raise KafkaClusterError("HR-0915", "a certificate could not be made", detail=f"{command[0]}: {said[:600]}")
    new.rename(place)
