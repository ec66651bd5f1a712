"""Words: the glossary's and no synonyms, no names that say nothing, no places that only one machine has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.tidy.tree import ROOT, Module, Rule, expect_none, files, found, modules, violations

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
}
# Other people's names, which are written as they are.
FOREIGN = re.compile(
    r"pyarrow\.dataset|lightgbm\.Dataset|sklearn\.(pipeline|datasets)|make_pipeline|pipeline_class=|define_pipelines|SAVEPOINT|savepoint="
)

VAGUE_FILES = ("utils", "util", "helpers", "helper", "common", "manager", "base", "misc", "shared", "tools")
VAGUE_ENDINGS = ("Impl", "Base", "Manager", "Helper", "Helpers", "Util", "Utils")

# Homes, mounts and folders beside the checkout, and numbers that only a tracker knows.
MACHINE = re.compile(
    r"(?<![\w.\-/])/(home|root|work|mnt|Users)/[\w.]|(?<![\w/])\.\./(?!\w+\.md)[a-z]\w+/|\bissues? #?\d", re.IGNORECASE
)
UNFINISHED = re.compile(r"TODO|FIXME|\bXXX\b|\bNotImplementedError\b")
SILENCER = re.compile(r"#\s*(noqa|type:\s*ignore)(?P<codes>\[[\w, -]+\]|:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?(?P<reason>.*)$")
TEXTS = (".md", ".toml", ".sh", ".html", ".css", ".yml", ".yaml", ".py")


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
    """A check is silenced by its code, and argued: words behind it, a comment on the line above, or once for the file
    in a comment that says "[code] throughout: why"."""
    for number, line in enumerate(module.lines, 1):
        match = SILENCER.search(line)
        if match is None:
            continue
        above = module.lines[number - 2].strip() if number > 1 else ""
        if f"{match.group('codes')} throughout: " in module.text:
            continue
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


def _texts() -> Iterator[tuple[str, str]]:
    """Path and text of every file we wrote, prose, scripts and Python; this one, which quotes what it bans, aside."""
    for path in files():
        if path not in (HERE, "LICENSE") and (path.endswith(TEXTS) or "." not in PurePosixPath(path).name):
            yield path, (ROOT / path).read_text()


def _elsewhere(rule: Rule) -> list[str]:
    return [found for module in modules() if module.path != HERE for found in rule(module)]


def test_no_synonyms() -> None:
    expect_none([v for path, text in _texts() for v in synonym(path, text)])


def test_no_machine_paths() -> None:
    expect_none([v for path, text in _texts() for v in machine_path(path, text)])


def test_nothing_is_left_unfinished() -> None:
    expect_none(_elsewhere(unfinished))


def test_silenced_checks_are_argued() -> None:
    expect_none(_elsewhere(silenced))


def test_no_vague_names() -> None:
    expect_none(violations(vague_name))


def test_a_synonym_is_found() -> None:
    for text in (
        "the dataset",
        "TrainingDataset",
        "a DAG run",
        "my_pipeline = 1",
        "workflows",
        "dead-letter",
        "worker pool",
    ):
        assert list(synonym("a.md", text)), text
    for text in ("import pyarrow.dataset", "dagger", "a training set", "from sklearn.pipeline import make_pipeline"):
        assert not list(synonym("a.md", text)), text


def test_a_machine_path_is_found() -> None:
    for text in ("see /work/main", "../beside/it", "it is /root/x", "'/home/ann/x'", "closes issue 3", "issue #12"):
        assert list(machine_path("a.md", text)), text
    for text in (
        "root/leaf",
        "net/work/card",
        "https://example.org/home/x",
        "an issue in 3 parts",
        "[law](../SEMANTICS.md)",
    ):
        assert not list(machine_path("a.md", text)), text


def test_unfinished_work_is_found() -> None:
    assert found(unfinished, "a = 1  # TODO later")
    assert found(unfinished, "raise NotImplementedError")
    assert found(unfinished, "todo = 1") == []


def test_an_unargued_silence_is_found() -> None:
    silence = "a = 1  # type: ignore"
    assert found(silenced, silence)
    assert found(silenced, f"{silence}[override]")
    assert found(silenced, f"{silence}[override]  # builds a tree") == []
    assert found(silenced, f"# It builds a tree.\n{silence}[override]") == []
    assert found(silenced, f"# [override] throughout: operators build trees\n\n{silence}[override]") == []
    assert found(silenced, f"# [override] throughout: operators build trees\n\n{silence}[misc]")
    assert found(silenced, "a = 1  # noqa: F401")
    assert found(silenced, "a = 1  # noqa: F401, E501 - names are re-exported") == []


def test_a_vague_name_is_found() -> None:
    assert found(vague_name, "", path="src/headrace/log/utils.py")
    assert found(vague_name, "", path="src/headrace/common/times.py")
    assert found(vague_name, "class LogManager: ...")
    assert found(vague_name, "class KafkaLog: ...") == []
