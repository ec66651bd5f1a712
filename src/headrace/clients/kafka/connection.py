"""How librdkafka is told of a cluster, and what its errors mean here. Reads the password, once; connects to nothing.

The one idea: librdkafka waits and tries again for ever, and says only beside the calls (`error_cb`) that a password is
wrong or that no broker is left. `Health` keeps what was said, and a call that waits asks it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from headrace.clients.kafka.define import PASSWORD_VARIABLE, KafkaSettings
from headrace.core.errors import FencedError, HeadraceError, LogError, NotFoundError, UsageError
from headrace.core.times import Duration

_Result = TypeVar("_Result")
Properties = dict[str, str | int | float | bool]

# What a call that only asks waits for an answer. With what is said of it (HR-0340, HR-0341) it ends within 10 s.
PATIENCE = Duration.parse("9s")
# A coordinator that moves, or that makes its first topic on a cluster that is new, keeps its groups waiting.
COORDINATOR_PATIENCE = Duration.parse("20s")
# A broker that has just started refuses passwords that it has not read yet, for less than a second.
_REFUSED_PATIENCE = Duration.parse("2s")
# Requests of an idempotent producer that are under way, of a connection. With two or more, librdkafka 2.16 does nothing
# but poll while they are: a connection to a broker that is slow for a moment took 0.4 of a processor, with one 0.003.
IN_FLIGHT = 1
# How often a call that waits looks at what was said beside it.
LOOK_S = 0.1

_NOT_FOUND = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_ID,
)
_NOT_ALLOWED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.DELEGATION_TOKEN_AUTHORIZATION_FAILED,
    KafkaError.SECURITY_DISABLED,
)
_REFUSED = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
_UNREACHABLE = (
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._SSL,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
)
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
# Gone when it is asked again: the leader or the coordinator moves, or what was made just now is not known everywhere.
PASSING = (
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_CONTROLLER,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.CONCURRENT_TRANSACTIONS,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError._WAIT_COORD,
    KafkaError._DESTROY_BROKER,  # its address changed, or it came back
)
FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)

_lines = logging.getLogger("headrace.clients.kafka.librdkafka")


class _Softened(logging.Filter):
    """librdkafka says each attempt to connect, twice a second, and calls an error what it mends itself. What a caller
    must know is raised; these lines are for who looks for the reason."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return _lines.isEnabledFor(logging.DEBUG)


_lines.addFilter(_Softened())


class Connection:
    """Where a cluster is, and as whom it is asked. environ: where the password is looked for.

    Raises: UsageError HR-0350 where a user has no password, or a file cannot be read.
    """

    def __init__(self, settings: KafkaSettings, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.logger = _lines
        self._security = _security(settings, environ)

    @property
    def who(self) -> str:
        return f"user {self.settings.user!r}" if self.settings.user else "this client"

    def properties(self, health: Health, *, name: str = "headrace") -> dict[str, Any]:
        """What every kind of client is told. name: `client.id`."""
        return {
            "bootstrap.servers": self.settings.bootstrap,
            "client.id": name,
            # A leader that is stopped by a signal holds its connections open. With the defaults it is given up after a
            # minute, with these after 6.5 s (docs/KAFKA.md K8).
            "socket.timeout.ms": 4000,
            "socket.connection.setup.timeout.ms": 4000,
            "api.version.request.timeout.ms": 4000,
            "topic.metadata.refresh.interval.ms": 2000,
            # A coordinator that is still ending a transaction is asked again so soon: commits take a fifth of the time
            # that they take with the default of 100 ms.
            "retry.backoff.ms": 5,
            "retry.backoff.max.ms": 100,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "socket.nagle.disable": True,
            "socket.keepalive.enable": True,
            "log.connection.close": False,
            "enable.metrics.push": False,
            "error_cb": health.told,
            **self._security,
        }

    def failure(self, error: KafkaError, doing: str) -> HeadraceError:
        """What an answer of librdkafka means. doing: "read topic 'x'"; it stands in the message."""
        code, seen = error.code(), f"seen: {error.str()}"
        if code in _NOT_FOUND:
            return NotFoundError("HR-0302", f"the Kafka cluster lacks what was asked for: {doing}", detail=seen)
        if code in _NOT_ALLOWED:
            return LogError(
                "HR-0342", f"{self.who} may not {doing}", detail=seen, hint="the cluster's operators grant it"
            )
        if code in _REFUSED:
            return self.refused(error.str())
        if code in _TOO_LARGE:
            return LogError("HR-0343", f"a record is too large to {doing}", detail=seen)
        if code in FENCED:
            return FencedError("HR-0344", f"another process took over; could not {doing}", detail=seen)
        if code in _UNREACHABLE:
            return self.unreachable(error.str())
        return LogError(
            "HR-0351",
            f"the Kafka cluster could not {doing}",
            detail=f"seen: {error.name()}: {error.str()}",
            retryable=bool(error.retriable()) or code in PASSING,
        )

    def refused(self, seen: str) -> LogError:
        where = "password_file= in the URL" if self.settings.password_file else PASSWORD_VARIABLE
        return LogError(
            "HR-0341",
            f"the Kafka cluster refuses {self.who}",
            detail=f"seen: {seen}",
            hint=f"{where}, or password_file= in the URL" if where == PASSWORD_VARIABLE else where,
        )

    def unreachable(self, seen: str) -> LogError:
        return LogError(
            "HR-0340",
            f"no broker of {self.settings.bootstrap} answers",
            detail=f"seen: {seen}" if seen else f"seen: nothing, for {PATIENCE}",
            hint=f"is the cluster up, and does its port speak {'TLS' if self.settings.tls else 'plain text, not TLS'}?",
            retryable=True,
        )


class Health:
    """What librdkafka said of its connections since something last went well. `told` is its `error_cb`, which runs
    inside the calls that poll."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._refused_at = 0.0
        self._refusal = ""
        self._down_at = 0.0
        self.seen = ""

    def told(self, error: KafkaError) -> None:
        code, text = error.code(), error.str()
        now = time.monotonic()
        if code in _REFUSED or (code == KafkaError._SSL and "certificate" in text.lower()):
            self._refused_at, self._refusal = self._refused_at or now, text
        elif code == KafkaError._ALL_BROKERS_DOWN:
            self._down_at = self._down_at or now
        elif code in _UNREACHABLE:
            self.seen = text

    def well(self) -> None:
        """Something was answered."""
        if self._refused_at or self._down_at or self.seen:
            self._refused_at, self._refusal, self._down_at, self.seen = 0.0, "", 0.0, ""

    @property
    def down_s(self) -> float:
        """For how long all brokers have been down, as far as was said; 0 where they are not."""
        return time.monotonic() - self._down_at if self._down_at else 0.0

    def check(self) -> None:
        """Raises: LogError HR-0341 where credentials were refused, and not for a moment only."""
        if self._refused_at and time.monotonic() - self._refused_at >= _REFUSED_PATIENCE.micros / 1e6:
            raise self._connection.refused(self._refusal)

    def given_up(self) -> LogError:
        """For a call that has waited long enough."""
        return self._connection.refused(self._refusal) if self._refused_at else self._connection.unreachable(self.seen)


def made(connection: Connection, make: Callable[[], _Result]) -> _Result:
    """A client of librdkafka, which reads files of certificates when it is made. Raises: UsageError HR-0350."""
    try:
        return make()
    except (KafkaException, ValueError) as error:
        seen = error.args[0].str() if isinstance(error.args[0], KafkaError) else str(error)
        raise UsageError(
            "HR-0350", f"no client of {connection.settings.bootstrap} can be made", detail=f"seen: {seen}"
        ) from error


def awaited(
    future: Future[_Result],
    *,
    connection: Connection,
    health: Health,
    serve: Callable[[], object],
    doing: str,
) -> _Result:
    """An answer, at most `PATIENCE` waited for. serve: polls the client, so that what is said beside is heard.

    Raises: KafkaException for what passes (`PASSING`); else as `Connection.failure`.
    """
    until = time.monotonic() + PATIENCE.micros / 1e6
    while True:
        try:
            found = future.result(timeout=LOOK_S)
        except TimeoutError:
            serve()
            health.check()
            if time.monotonic() > until:
                raise health.given_up() from None
        except KafkaException as error:
            serve()
            health.check()
            if error.args[0].code() in PASSING or (error.args[0].code() == KafkaError._TIMED_OUT and not health.seen):
                raise  # brokers answer, and what they wait for themselves comes
            if error.args[0].code() in _UNREACHABLE:
                raise health.given_up() from error
            raise connection.failure(error.args[0], doing) from error
        else:
            health.well()
            return found


def retried(
    ask: Callable[[], _Result], *, connection: Connection, doing: str, patience: Duration = PATIENCE
) -> _Result:
    """`ask`, again while what stops it passes. Raises: what `ask` raises; after `patience` as `Connection.failure`."""
    until, pause_s = time.monotonic() + patience.micros / 1e6, 0.005
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() + pause_s > until:
                raise connection.failure(error.args[0], doing) from error
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.2)


def _security(settings: KafkaSettings, environ: Mapping[str, str]) -> Properties:
    found: Properties = {
        "security.protocol": ("sasl_" if settings.user else "") + ("ssl" if settings.tls else "plaintext")
    }
    for name, file in (("ca", settings.ca), ("certificate", settings.certificate), ("key", settings.key)):
        if settings.tls and file:
            found[f"ssl.{name}.location"] = _readable(name, file)
    if settings.user:
        found["sasl.mechanism"] = settings.mechanism
        found["sasl.username"] = settings.user
        found["sasl.password"] = _password(settings, environ)
    return found


def _readable(name: str, file: str) -> str:
    """librdkafka says neither which file it cannot read, nor why."""
    try:
        with Path(file).open("rb"):
            return file
    except OSError as error:
        raise UsageError(
            "HR-0350", f"the file of {name}= in the log's URL cannot be read", detail=f"{file}: {error.strerror}"
        ) from error


def _password(settings: KafkaSettings, environ: Mapping[str, str]) -> str:
    if settings.password_file:
        try:
            return Path(settings.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise UsageError(
                "HR-0350", f"the file of the password for user {settings.user!r} cannot be read",
                detail=f"password_file={settings.password_file}: {why}",
            ) from error  # fmt: skip
    if PASSWORD_VARIABLE not in environ:
        raise UsageError(
            "HR-0350",
            f"there is no password for user {settings.user!r}",
            detail=f"looked for password_file= in the URL, then for {PASSWORD_VARIABLE}",
            hint=f"export {PASSWORD_VARIABLE}=...",
        )
    return environ[PASSWORD_VARIABLE]
