"""Reads what a run of chaos left, topics, answers, acknowledgements and effects, and has it judged. Touches the cluster
by plain confluent-kafka, files, and nothing of headrace.

    python -m bench._chaos_check BOOTSTRAP PREFIX FOLDER

looks at a folder that was kept, once more.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from bench._chaos_derived import judge_derived
from bench._chaos_judge import (
    Effect,
    Folded,
    Found,
    Message,
    Value,
    fold,
    judge_answers,
    judge_effects,
    judge_events,
    judge_records,
    judge_values,
)

RECORDS = "headrace.decisions.checkout"
DERIVED, DERIVED_KEY = "visits_by_shop", "shop"
POLL_S = 5.0
SILENT_MAX = 12  # polls in a row without anything, after which the cluster is told to be gone


def check(bootstrap: str, prefix: str, folder: Path) -> tuple[Found, Folded, list[Value]]:
    """What was found; the records; the answers, as the load wrote them."""
    found = Found()
    orders, _ = read(bootstrap, f"{prefix}orders")
    visits, _ = read(bootstrap, f"{prefix}visits")
    folded = fold(read(bootstrap, prefix + RECORDS)[0])
    answers = answers_of(folder)
    given_up = [line for line in answers if "given_up" in line]
    answers = [line for line in answers if "answer" in line]
    found.counts["given_up"] = len(given_up)
    judge_records(folded, orders, found)
    judge_answers(folded, answers, found)
    judge_events(visits, sent_of(folder), acknowledged_of(folder), found)
    judge_effects(visits, effects_of(folder), found)
    judge_values(folded, orders, visits, found)
    derived, partitions = read(bootstrap, prefix + DERIVED, whole=True)
    judge_derived(visits, derived, partitions, key=DERIVED_KEY, found=found)
    found.counts["requests_again"] = len(orders) - len({message.value["order"] for message in orders})
    return found, folded, answers


def read(bootstrap: str, topic: str, *, whole: bool = False) -> tuple[list[Message], int]:
    """A topic's committed records with a value, partition by partition, up to their ends, and how many partitions it
    has. whole: with keys and headers. Raises: KafkaException; TimeoutError where nothing comes for a minute."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "chaos-check",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.max.bytes": 16_777_216,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        held: dict[int, list[Message]] = {index: [] for index in sorted(partitions)}
        left, silent = set(held), 0
        consumer.assign([TopicPartition(topic, index, OFFSET_BEGINNING) for index in held])
        while left:
            records = consumer.consume(10_000, timeout=POLL_S)
            silent = 0 if records else silent + 1
            if silent > SILENT_MAX:
                raise TimeoutError(f"{topic}: partitions {sorted(left)} give nothing")
            for record in records:
                error = record.error()
                index = record.partition()
                assert index is not None
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    left.discard(index)
                elif error is not None:
                    raise KafkaException(error)
                elif (value := record.value()) is not None:
                    offset = record.offset()
                    assert offset is not None
                    message = Message(index, offset, record.timestamp()[1], json.loads(value))
                    held[index].append(_whole(message, record) if whole else message)
        return [message for messages in held.values() for message in messages], len(held)
    finally:
        consumer.close()


def _whole(message: Message, record: KafkaMessage) -> Message:
    headers = [(name, value) for name, value in record.headers() or [] if isinstance(value, bytes)]
    return message._replace(key=record.key(), headers=tuple(headers))


def answers_of(folder: Path) -> list[Value]:
    with (folder / "answers.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def sent_of(folder: Path) -> Counter[str]:
    return Counter(json.loads(line)["visit"] for file in sorted(folder.glob("*.sent")) for line in _lines(file))


def acknowledged_of(folder: Path) -> Iterator[tuple[str, int, int]]:
    for file in sorted(folder.glob("*.acked")):
        for line in _lines(file):
            number, partition, offset = line.split()
            yield f"{file.stem}-{int(number)}", int(partition), int(offset)


def effects_of(folder: Path) -> list[Effect]:
    connection = sqlite3.connect(folder / "effects.db")
    try:
        rows = connection.execute("SELECT part, place, customer, number FROM effects ORDER BY rowid").fetchall()
    finally:
        connection.close()
    return [Effect(*row) for row in rows]


def _lines(file: Path) -> list[bytes]:
    """Whole ones: a kill may have left a part of a last one."""
    raw = file.read_bytes()
    return raw[: raw.rfind(b"\n") + 1].splitlines()


if __name__ == "__main__":
    seen = check(sys.argv[1], sys.argv[2], Path(sys.argv[3]))[0]
    print("\n".join(seen.told))
    print(json.dumps(seen.counts))
