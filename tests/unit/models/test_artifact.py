"""Artifacts: equal content is equal bytes, what is not one is refused, and nothing in a file makes the scorer stray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headrace.core.errors import NotFoundError, SchemaError
from headrace.core.kernel.model import Form
from headrace.models.artifact import Artifact, Scorer, decode, encode
from headrace.models.folder import FolderModelStore
from tests.unit.models.test_scorer import artifact, changed, random_rows


def some(form: Form = Form.BOOSTED, seed: int = 1) -> Artifact:
    return artifact(form, np.random.default_rng(seed), standardize=True)


@pytest.mark.parametrize("form", list(Form))
def test_an_artifact_comes_back_whole(form: Form) -> None:
    model = some(form)
    data = encode(model)
    back = decode(data)
    assert encode(back) == data and back.id == model.id
    assert back.base.hex() == model.base.hex()
    rows = random_rows(np.random.default_rng(2), 50)
    assert Scorer(back).many(rows).tobytes() == Scorer(model).many(rows).tobytes()


def test_the_id_is_of_the_content() -> None:
    model = some()
    assert some().id == model.id
    for part in ({"training_set": "u"}, {"base": model.base + 1}, {"views": (("v", "1"),)}, {"label": "other"}):
        assert changed(model, **part).id != model.id


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"\x93NUMPY",
        lambda data: data[:-1],
        lambda data: data + b"\0" * 64,
        lambda data: data.replace(b"headrace model 1", b"headrace model 2"),
        lambda data: data.replace(b'"form":"boosted"', b'"form":"guessed"'),
        lambda data: data.replace(b'"trees.left","<i4"', b'"trees.left","<i8"'),
        lambda data: data.replace(b'"semantics":1', b'"semantics":2'),
    ],
)
def test_what_is_no_artifact_is_refused(spoil: object) -> None:
    with pytest.raises(SchemaError) as caught:
        decode(spoil(encode(some())))
    assert caught.value.code == "HR-0609"


@pytest.mark.parametrize(
    ("array", "place", "value"),
    [
        ("left", 0, 0),  # a node that is its own child: the walk would not end
        ("left", 0, 10_000),  # a child that is not there
        ("right", 0, -1),
        ("input", 0, 4),
        ("input", 0, -1),
        ("roots", 1, 1),  # a root inside another tree
        ("roots", 0, 1),
        ("threshold", 0, np.nan),
        ("value", -1, np.inf),
        ("cover", 0, np.nan),
        ("cover", 1, -1.0),
        ("cover", -1, np.inf),
    ],
)
def test_trees_that_would_lead_astray_are_refused(array: str, place: int, value: float) -> None:
    model = some()
    trees = model.trees
    assert trees is not None and trees.left[0] >= 0
    spoiled = {name: getattr(trees, name).copy() for name in trees.__slots__}
    spoiled[array][place] = value
    with pytest.raises(SchemaError) as caught:
        changed(model, trees=type(trees)(**spoiled))
    assert caught.value.code == "HR-0609"


@pytest.mark.parametrize(
    "parts",
    [
        {"trees": None},
        {"means": None},
        {"means": np.array([0.0, 1.0, 2.0])},
        {"deviations": np.array([1.0, 1.0, 0.0, 1.0])},
        {"base": float("nan")},
        {"inputs": ()},
        {"form": Form.LINEAR},
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict[str, object]) -> None:
    with pytest.raises(SchemaError) as caught:
        changed(some(), **parts)
    assert caught.value.code == "HR-0609"


def test_a_store_keeps_lists_and_gives_back(tmp_path: Path) -> None:
    store = FolderModelStore(tmp_path / "models")
    assert list(store.list()) == []
    first, second = some(seed=1), some(Form.LINEAR, seed=2)
    assert store.put(first) == first.id == store.put(first)
    store.put(second)
    assert {one.id for one in store.list()} == {first.id, second.id}
    assert encode(store.get(second.id)) == encode(second)
    (tmp_path / "models" / ".writing-x").write_bytes(b"a process died here")
    assert len(store.list()) == 2
    with pytest.raises(NotFoundError) as caught:
        store.get("0" * 64)
    assert caught.value.code == "HR-0611"
    with pytest.raises(NotFoundError):
        store.get("../" + first.id)


def test_a_file_that_changed_is_found(tmp_path: Path) -> None:
    store = FolderModelStore(tmp_path)
    model = some()
    store.put(model)
    file = tmp_path / f"{model.id}.model"
    file.write_bytes(encode(changed(model, training_set="another")))
    with pytest.raises(SchemaError) as caught:
        store.get(model.id)
    assert caught.value.code == "HR-0609"


def test_the_file_says_in_words_what_it_is() -> None:
    first, header, _ = encode(some()).split(b"\n", 2)
    assert first == b"headrace model 1"
    said = json.loads(header.rstrip(b"\0"))
    assert said["inputs"][0] == ["x0", "rows.x0", "float64"] and said["training_set"] == "t"
