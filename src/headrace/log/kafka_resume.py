"""What a process knows of the partitions of a Kafka log that it follows, as files, and back in another process.

The one idea: verdicts are a function of a partition's log, so what was judged up to an offset is known for ever; who
has it need not read what lies before. A file that does not fit costs the time to read the partition from its start,
and never a bit. Touches the cluster through `Following`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from headrace.core.errors import NotFoundError, StateError
from headrace.core.points import Cut, Partition
from headrace.log.kafka_following import Following

PREFIX = "judge"  # of a file's name, before the topic, its incarnation, the partition's index

_logger = logging.getLogger(__name__)


def kept(following: Following, cut: Cut) -> dict[str, bytes]:
    """A file for each live partition of the cut that is followed. It may know more than lies below the cut: what lies
    there is read again."""
    with following.lock:
        feeds = [following.feeds[partition] for partition, _ in cut if partition in following.feeds]
        return {_name(feed.partition): feed.kept() for feed in feeds if feed.keeps}


def resume(following: Following, files: Mapping[str, bytes]) -> int:
    """Follow the partitions whose files fit from where those were made; how many these are."""
    known = {partition: body for name, body in files.items() if (partition := _partition(name)) is not None}
    if known:
        following.refresh()
    count = 0
    for partition, body in known.items():
        try:
            count += following.resume(partition, body)
        except (StateError, NotFoundError) as error:
            _logger.warning("%s is read from its start: %s", partition, error, extra={"code": error.code})
    return count


def _name(partition: Partition) -> str:
    return f"{PREFIX}.{partition.topic}.{partition.incarnation}.{partition.index}"


def _partition(name: str) -> Partition | None:
    """Of a file's name; None where it is another's file."""
    prefix, _, rest = name.partition(".")
    topic, *numbers = rest.rsplit(".", 2)
    if prefix != PREFIX or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return None
    return Partition(topic, int(numbers[0]), int(numbers[1]))
