"""What of the machine a cluster needs: Java, and Apache Kafka's own libraries, fetched once by Maven.

The libraries lie in a folder that is named by the hash of the pom beside this file; it appears whole or not at all, and
two processes that need it at once fetch it once. Touches: the cache folder, `java -version`, Maven and so the network.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace import locked as kernel
from headrace.core.errors import MissingExtraError
from headrace.testing.kafka.define import JAVA_VERSION_MIN, KAFKA_VERSION, KafkaClusterError
from headrace.testing.kafka.plan import java_version

POM = Path(__file__).with_name("pom.xml")
GET_JAVA = "install Java 17 or newer, as in: apt-get install openjdk-17-jdk-headless"
GET_MAVEN = "install Maven, as in: apt-get install maven"
# Its full name: where it cannot be fetched Maven then says why, and not that it knows no such prefix.
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_FETCH_SECONDS_MAX = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What of this machine is used. cache: the folder for what is fetched once. java_home: where Java is; where it is
    empty, the PATH says. fetch_options: given to Maven."""

    cache: Path
    java_home: str = ""
    fetch_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """java: the program. libs: the folder of jars."""

    java: Path
    libs: Path


def tools(machine: Machine, *, say: Callable[[str], None]) -> Tools:
    """What starts a node, the libraries fetched if they are not there. say: told before a long wait.

    Raises: MissingExtraError HR-0911 where Linux, Java or Maven is missing, KafkaClusterError HR-0912 (retryable) where
    the libraries cannot be fetched, KafkaClusterError HR-0917 where the cache folder cannot be used.
    """
    if not sys.platform.startswith("linux"):
        raise MissingExtraError(
            "HR-0911", "a Kafka cluster of headrace's own needs Linux", detail="it is watched through /proc and pidfds"
        )
    return Tools(java=java(machine), libs=libraries(machine, say=say))


def java(machine: Machine) -> Path:
    """The program `java`. Raises: MissingExtraError HR-0911 where it is missing, does not run, or is older than 17."""
    if machine.java_home:
        found = shutil.which(str(Path(machine.java_home) / "bin" / "java"))
        place = f"JAVA_HOME, {machine.java_home}"
    else:
        found, place = shutil.which("java"), "the PATH"
    if found is None:
        raise MissingExtraError(
            "HR-0911", "Kafka needs Java, which is not there", detail=f"looked in {place}", hint=GET_JAVA
        )
    try:
        said = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=60, check=False)
        text = said.stderr + said.stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        text = str(error)
    version = java_version(text)
    if version < JAVA_VERSION_MIN:
        what = f"is Java {version}" if version else f"says {text.strip()[:200]!r}"
        raise MissingExtraError(
            "HR-0911",
            f"Kafka {KAFKA_VERSION} needs Java {JAVA_VERSION_MIN} or newer",
            detail=f"{found} {what}",
            hint=GET_JAVA,
            version=version,
        )
    return Path(found).resolve()


def libraries_folder(machine: Machine) -> Path:
    """Where the libraries lie, or will."""
    return machine.cache / "kafka" / hashlib.sha256(POM.read_bytes()).hexdigest()[:20]


def libraries(machine: Machine, *, say: Callable[[str], None]) -> Path:
    """The folder of jars, made if it is not there. Raises: as `tools`."""
    wanted = libraries_folder(machine)
    if ":" in str(wanted):  # Java would read two folders
        raise KafkaClusterError("HR-0917", f"the folder {wanted} cannot be used", detail="there is a colon in its name")
    if wanted.is_dir():
        return wanted
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingExtraError(
            "HR-0911",
            f"Apache Kafka {KAFKA_VERSION} is fetched by Maven, which is not there",
            detail="looked for mvn in the PATH",
            hint=GET_MAVEN,
        )
    with locked(wanted.with_suffix(".lock")):
        if not wanted.is_dir():  # another process may have fetched it meanwhile
            say(f"fetching Apache Kafka {KAFKA_VERSION} by Maven into {wanted} (56 MB, once)")
            _fetch(maven, machine, wanted)
    return wanted


def _fetch(maven: str, machine: Machine, wanted: Path) -> None:
    for left_over in wanted.parent.glob(f".{wanted.name}-*"):  # by one that was killed; nobody else fetches now
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=wanted.parent, prefix=f".{wanted.name}-") as temporary:
        pom, jars = Path(temporary, "pom.xml"), Path(temporary, "libs")
        shutil.copyfile(POM, pom)  # Maven may write beside its pom, and a package's folder may be read-only
        command = [
            maven, "--batch-mode", "--quiet", "--strict-checksums", *machine.fetch_options, "--file", str(pom),
            f"{_PLUGIN}:copy-dependencies", f"-DoutputDirectory={jars}", "-DincludeScope=runtime",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FETCH_SECONDS_MAX,
                check=False,
            )
            said, status = done.stdout + done.stderr, done.returncode
        except subprocess.TimeoutExpired:
            said, status = f"Maven did not end within {_FETCH_SECONDS_MAX} s", -1
        if status != 0 or not (jars / f"kafka_2.13-{KAFKA_VERSION}.jar").is_file():
            raise KafkaClusterError(
                "HR-0912",
                f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central",
                detail=_first_complaint(said),
                hint=f"see that this works: mvn --batch-mode --file {POM} {_PLUGIN}:resolve; "
                "a proxy or a mirror is said in ~/.m2/settings.xml",
                retryable=True,
            )
        jars.rename(wanted)


def _first_complaint(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if "ERROR" in line] or said.strip().splitlines()
    return lines[0][:600] if lines else "Maven said nothing"


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of this file's name, until the end of the block or of the process. wait: else it yields False at
    once where another has it. Raises: KafkaClusterError HR-0917 where its folder cannot be written."""
    with ExitStack() as stack:
        try:
            mine = stack.enter_context(kernel.locked(file, wait=wait))
        except OSError as error:
            raise unusable(file.parent, error) from error
        yield mine


def unusable(folder: Path, error: OSError) -> KafkaClusterError:
    """The error for a folder that cannot be written."""
    return KafkaClusterError(
        "HR-0917", f"the folder {folder} cannot be used", detail=str(error), hint=f"check: ls -ld {folder}"
    )
