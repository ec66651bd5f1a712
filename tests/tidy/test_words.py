"""Words: the glossary's and no synonyms, no names that say nothing, no places that only one machine has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.tidy.tree import ROOT, Module, files, found, violations

HERE = "tests/tidy/test_words.py"

# A synonym (pattern, any case) -> the word to use. One noun a thing: a second one is a second thing to whoever reads.
SYNONYMS = {
    r"data_?sets?(?![a-z])": "table, training set, or rows",
    r"pipelines?(?![a-z])": "view, job, or what it does",
    r"(?<![a-z_])dags?(?![a-z_])": "job, or plan",
    r"work_?flows?(?![a-z])": "job",
    r"worker[ _-]?pools?": "queue",
    r"dead[ _-]letters?": "quarantine",
    r"feature[ _-]?groups?": "feature view",
    r"savepoints?(?!\w)": "checkpoint",
    r"snapshot isolation of topics": "cut",
}
# Other people's names, which are written as they are.
FOREIGN = re.compile(r"pyarrow\.dataset|sklearn\.(pipeline|datasets)|make_pipeline|SAVEPOINT|savepoint=")

VAGUE_FILES = ("utils", "util", "helpers", "helper", "common", "manager", "base", "misc", "shared", "tools")
VAGUE_ENDINGS = ("Impl", "Base", "Manager", "Helper", "Helpers", "Util", "Utils")

# Paths of one machine, and numbers that only its tracker knows. Written in parts, so that this file holds none.
MACHINE = re.compile("|".join(["/wo" + "rk/", r"\.\./sh" + "ared", r"(?<![\w./])/ro" + "ot/", r"/ho" + r"me/\w", r"\.lib" + "rary/", r"\bissue \d"]))

UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", r"\bXX" + "X" + r"\b", "Not" + "ImplementedError"]))
SILENCER = re.compile(r"#\s*(no" + r"qa|type:\s*ignore)(?P<codes>[:\[][\w\], ,-]*)?(?P<reason>.*)$")


def synonym(path: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        own = FOREIGN.sub("", line)
        for pattern, word in SYNONYMS.items():
            if (match := re.search(pattern, own, re.IGNORECASE)) is not None:
                yield f"{path}:{number} {match.group()!r}: say {word}"


def machine_path(path: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if (match := MACHINE.search(line)) is not None:
            yield f"{path}:{number} {match.group()!r} exists on one machine only"


def unfinished(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.lines, 1):
        if (match := UNFINISHED.search(line)) is not None:
            yield f"{module.path}:{number} {match.group()}: finish it, or leave it out"


def silenced(module: Module) -> Iterator[str]:
    """A check is silenced by its code, and argued: words behind it, or a comment on the line above."""
    for number, line in enumerate(module.lines, 1):
        match = SILENCER.search(line)
        if match is None:
            continue
        above = module.lines[number - 2].strip() if number > 1 else ""
        if not match.group("codes"):
            yield f"{module.path}:{number} names no code: it silences everything"
        elif not re.search(r"[a-z]{3}", match.group("reason") or "") and not above.startswith("#"):
            yield f"{module.path}:{number} gives no reason beside it"


def vague_name(module: Module) -> Iterator[str]:
    for part in PurePosixPath(module.path).with_suffix("").parts:
        if part.strip("_") in VAGUE_FILES:
            yield f"{module.path}: {part!r} says nothing; name the noun it holds"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(VAGUE_ENDINGS):
            yield f"{module.path}:{node.lineno} {node.name}: adapters are named by technology, the rest by what it is"


def _texts(*, code: bool) -> Iterator[tuple[str, str]]:
    """Path and text of every file we wrote: prose and scripts, and Python where `code`."""
    for path in files():
        known = path.endswith((".md", ".toml", ".sh", ".html", ".css", ".yml", ".yaml")) or "." not in PurePosixPath(path).name
        if path != HERE and path not in ("LICENSE",) and (known or (code and path.endswith(".py"))):
            yield path, (ROOT / path).read_text()


def test_no_synonyms() -> None:
    assert [v for path, text in _texts(code=True) for v in synonym(path, text)] == []


def test_no_machine_paths() -> None:
    assert [v for path, text in _texts(code=True) for v in machine_path(path, text)] == []


@pytest.mark.parametrize("under", ["src/", "tests/", "examples/", "bench/", "scripts/"])
def test_nothing_is_left_unfinished(under: str) -> None:
    assert violations(unfinished, under=under) == []


def test_silenced_checks_are_argued() -> None:
    assert violations(silenced, under="") == []


def test_no_vague_names() -> None:
    assert violations(vague_name) == []


def test_a_synonym_is_found() -> None:
    for text in ("the dataset", "TrainingDataset", "DAG run", "my_pipeline = 1", "a work" + "flow", "dead-letter", "worker pool"):
        assert list(synonym("a.md", text)), text
    for text in ("import pyarrow.dataset", "dagger", "a training set", "from sklearn.pipeline import make_pipeline"):
        assert not list(synonym("a.md", text)), text


def test_a_machine_path_is_found() -> None:
    for text in ("see /wo" + "rk/main", "../sh" + "ared/x", "~ is /ro" + "ot/x", "/ho" + "me/ann/x", "closes iss" + "ue 3"):
        assert list(machine_path("a.md", text)), text
    for text in ("the root/leaf", "network/card", "https://example.org/home", "an issue with 3 parts"):
        assert not list(machine_path("a.md", text)), text


def test_unfinished_work_is_found() -> None:
    assert found(unfinished, "a = 1  # TO" + "DO later")
    assert found(unfinished, "raise Not" + "ImplementedError")
    assert found(unfinished, "todo = 1") == []


def test_an_unargued_silence_is_found() -> None:
    silence = "a = 1  # type: " + "ignore"
    assert found(silenced, silence)
    assert found(silenced, f"{silence}[override]")
    assert found(silenced, f"{silence}[override]  # builds a tree") == []
    assert found(silenced, f"# It builds a tree.\n{silence}[override]") == []
    assert found(silenced, "a = 1  # no" + "qa: F401")
    assert found(silenced, "a = 1  # no" + "qa: F401, E501 - names are re-exported") == []


def test_a_vague_name_is_found() -> None:
    assert found(vague_name, "", path="src/headrace/log/utils.py")
    assert found(vague_name, "", path="src/headrace/common/times.py")
    assert found(vague_name, "class LogManager: ...")
    assert found(vague_name, "class KafkaLog: ...") == []
