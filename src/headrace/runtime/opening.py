"""Which log a project has: a file in its folder, or a Kafka cluster. Touches: what is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headrace import plugs
from headrace.clients.kafka.define import KafkaSettings
from headrace.clients.kafka.port import KafkaClient
from headrace.core.errors import LogError
from headrace.core.times import Clock
from headrace.log.kafka import KafkaLog
from headrace.log.port import Log
from headrace.log.run import Role, open_log
from headrace.runtime.ownership import Owner, Ownership


def open_log_of(url: str, folder: Path, *, clock: Clock, role: Role, environ: Mapping[str, str]) -> Log:
    """url: of the project's settings; "" is the file in `folder`, which `role` is about: a cluster has no owner.

    Raises: as `open_log`; UsageError HR-0350, MissingExtraError HR-0990, LogError HR-0340 to HR-0342."""
    if not url:
        return open_log(folder, clock=clock, role=role)
    settings = KafkaSettings.parse(url)
    make = plugs.load("kafka client", "confluent")
    client: KafkaClient = make(settings, environ)  # type: ignore[operator]  # the class that the plug names
    return KafkaLog(client, settings=settings, clock=clock)


def origin_of(log: Log) -> str:
    """Which log it is, for what is kept of it elsewhere: a cluster's id and the prefix; "" for a file."""
    return f"{log.client.cluster().id}/{log.settings.prefix}" if isinstance(log, KafkaLog) else ""


def ownership_of(
    log: Log,
    *,
    name: str,
    topics: Mapping[str, str],
    owners: Callable[[], Mapping[str, Owner]],
    held: Sequence[str] = (),
) -> Ownership:
    """Of a process that serves a shared log, as `Ownership` says."""
    assert isinstance(log, KafkaLog), "only a cluster's log is shared"
    settings = log.settings
    return Ownership(
        log.client,
        prefix=settings.prefix,
        session=settings.session_timeout,
        name=name,
        topics=topics,
        owners=owners,
        held=held,
        unfit=log.unfit,
        keep=log.keep_anchors,
    )


def altered_of(log: Log) -> tuple[LogError, ...]:
    """What somebody altered by hand of a log's topics (`KafkaLog.altered`); a file's cannot be. Raises: LogError."""
    return log.altered() if isinstance(log, KafkaLog) else ()
