"""The handbook's log in Kafka gives the features that it gives in a file, to the bit, in either form, on one partition
and on three; and what the topic gets live is judged alike."""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.log.define import Payload
from headrace.runtime.project import Project, open_project
from headrace.testing.kafka import KafkaCluster
from tests.e2e.handbook import EXAMPLE, example
from tests.needs import requires

ROWS = 20_000
VIEWS = ("customer", "terminal")

pytestmark = [pytest.mark.slow, pytest.mark.kafka]


@pytest.fixture(scope="module")
def transactions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    requires("xgboost", "sklearn", "matplotlib")
    folder = tmp_path_factory.mktemp("transactions")
    whole = example("simulate").simulate(folder / "whole.parquet")
    file = folder / "transactions.parquet"
    pq.write_table(pq.read_table(whole).slice(0, ROWS), file)
    return file


@pytest.fixture(scope="module")
def features(transactions: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Of the log in a file."""
    with project_in(tmp_path_factory.mktemp("embedded") / "project", partitions=1) as project:
        return imported(project, transactions, Payload.ARROW)


@pytest.mark.parametrize("form", Payload, ids=lambda form: form.value)
@pytest.mark.parametrize("partitions", (1, 3))
def test_features_are_those_of_the_log_in_a_file(
    transactions: Path, features: pa.Table, kafka: KafkaCluster, tmp_path: Path, form: Payload, partitions: int
) -> None:
    log = f"kafka://{kafka.bootstrap}/{uuid.uuid4().hex[:8]}."
    with project_in(tmp_path / "project", partitions=partitions, log=log) as project:
        assert imported(project, transactions, form).equals(features)
    with open_project(tmp_path / "project") as project:
        assert replayed(project).equals(features), "another process reads the same"


def imported(project: Project, file: Path, form: Payload) -> pa.Table:
    options = dataclasses.replace(example("run").OPTIONS, payload=form)
    report = project.import_file("transactions", file, options=options)
    assert report.taken == ROWS
    return replayed(project)


def replayed(project: Project) -> pa.Table:
    return project.replay(VIEWS).sort_by("transaction_id").combine_chunks()


def project_in(folder: Path, *, partitions: int, log: str = "") -> Project:
    folder.mkdir()
    text = (EXAMPLE / "definitions.py").read_text(encoding="utf-8")
    changed = text.replace('clock="simulated",', f'clock="simulated", partitions={partitions},', 1)
    assert changed != text
    (folder / "definitions.py").write_text(changed, encoding="utf-8")
    if log:
        (folder / "headrace.toml").write_text(f'log = "{log}"\n', encoding="utf-8")
    project = open_project(folder)
    project.apply()
    return project
