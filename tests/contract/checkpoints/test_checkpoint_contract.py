"""The contract of places for checkpoints over each there is: a folder of one process, a shared one, S3."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.clients.s3 import S3Settings
from headrace.features import checkpoint
from headrace.features.checkpoint_folder import FolderCheckpoints
from headrace.features.checkpoint_names import OTHERS_KEPT, parsed
from headrace.features.checkpoint_s3 import S3Checkpoints
from headrace.features.checkpoint_state import files_of
from headrace.features.checkpoint_store import CheckpointStore
from headrace.testing.contracts.checkpoints import CHECKS, DiedError, StoreUnderTest, dying
from tests.contract.checkpoints.s3_server import BUCKET, CREDENTIALS, S3Server, s3_server
from tests.needs import requires
from tests.unit.features.test_checkpoint import PRINTS, filled, follow, plans

PIECE_BYTES = 5 << 20  # the least that S3 takes
_prefixes = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    requires("boto3", "moto", "flask_cors")
    with s3_server(Path(tmp_path_factory.mktemp("s3"))) as started:
        yield started


@pytest.fixture(params=["folder", "shared folder", "s3"])
def under(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreUnderTest]:
    opened: list[CheckpointStore] = []

    def again() -> CheckpointStore:
        opened.append(make())
        return opened[-1]

    make: Callable[[], CheckpointStore]
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("server")
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        settings, prefix = S3Settings(bucket=BUCKET, endpoint=server.endpoint), f"place{next(_prefixes)}/below"
        make = lambda: S3Checkpoints(settings, prefix, piece_bytes=PIECE_BYTES)  # noqa: E731 - one of two
    else:
        shared = request.param == "shared folder"
        make = lambda: FolderCheckpoints(tmp_path / "a" / "b", shared=shared)  # noqa: E731 - one of two
    yield StoreUnderTest(again(), again)
    for store in opened:
        store.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_checkpoint_store_contract(under: StoreUnderTest, check: Callable[[StoreUnderTest], None]) -> None:
    check(under)


def test_a_state_is_taken_over_part_by_part(under: StoreUnderTest) -> None:
    log, state = filled(3, 12)
    older = state.frontier
    for _ in range(2):
        checkpoint.write(state, under.store, fingerprints=PRINTS, part="p3")
    follow(state, log.lender, [log.draw() for _ in range(4)])
    for _ in range(2):
        checkpoint.write(state, under.again(), fingerprints=PRINTS, part="p1")
    for part, frontier in (("p3", older), ("p1", state.frontier)):
        found = checkpoint.restore(
            plans(log.lender), under.again(), fingerprints=PRINTS, topics=[log.lender.truths], part=part
        )
        assert found is not None and found.frontier == frontier
    assert checkpoint.restore(plans(log.lender), under.store, fingerprints=PRINTS, part="p2") is None


def test_the_last_two_of_a_part_are_kept(under: StoreUnderTest) -> None:
    log, state = filled(3, 6)
    checkpoint.write(state, under.store, fingerprints=PRINTS, part="p1")
    for _ in range(4):
        checkpoint.write(state, under.store, fingerprints=PRINTS, part="p2")
        follow(state, log.lender, [log.draw()])
    assert [name.number for name in parsed(under.store.names("p2-"))] == [3, 4]
    assert [name.number for name in parsed(under.store.names("p1-"))] == [1]


def test_what_a_dead_writer_left_goes(under: StoreUnderTest) -> None:
    """At once where nobody else writes, else when so many came after it that it is none that writes now."""
    _, state = filled(3, 6)
    name = checkpoint.write(state, under.store, fingerprints=PRINTS)
    with pytest.raises(DiedError):
        under.store.put(name.replace("all-00000001", "all-00000002"), dying(files_of(state), 1))
    assert len(under.store.unfinished("")) == 1
    checkpoint.write(state, under.store, fingerprints=PRINTS)
    assert len(under.store.unfinished("")) == under.store.shared
    for _ in range(OTHERS_KEPT):
        checkpoint.write(state, under.store, fingerprints=PRINTS)
    assert list(under.store.unfinished("")) == []
    assert len(under.store.names("")) == 2
