"""Documents: what they name exists. Error codes have pages, paths and symbols are there, public names load."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tests.tidy.tree import ROOT, Module, expect_none, files, modules

CODE = re.compile(r"HR-\d{4}")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
ENDINGS = (".py", ".md", ".toml", ".sh", ".jsonl")
PLACEHOLDER = re.compile(r"NNNN|NAME|DIR|FILE|<|\.\.\.|\$|\s")


def codes_without_page(sources: tuple[Module, ...], pages: set[str]) -> Iterator[str]:
    users: dict[str, list[str]] = {}
    for module in sources:
        for code in sorted(set(CODE.findall(module.text)) - pages):
            users.setdefault(code, []).append(module.path)
    for code, paths in sorted(users.items()):
        yield f"{code} has no page docs/errors/{code}.md; it is in {', '.join(paths)}"


def pages_without_code(sources: tuple[Module, ...], pages: set[str]) -> Iterator[str]:
    used = {code for module in sources for code in CODE.findall(module.text)}
    for code in sorted(pages - used):
        yield f"docs/errors/{code}.md: nothing in src raises {code}"


def page_without_title(path: str, text: str) -> Iterator[str]:
    code = PurePosixPath(path).stem
    if not re.match(rf"# {code}\b.+", text):
        yield f"{path}: begins with '# {code}: what happened'"


def missing_names(path: str, text: str, root: Path = ROOT) -> Iterator[str]:
    """Paths, `path:Symbol`, dotted `headrace.x.y` and links in a document that lead nowhere.

    A word in backquotes is a path where it has a folder of ours in front or ends like one of our files; braces are
    alternatives, stars match. Relative to the repository's root, to src/headrace, to the document.
    """
    places = (root, root / "src" / "headrace", (root / path).parent)
    prose = FENCE.sub("", text)
    for link in LINK.findall(prose):
        if "://" not in link and not link.startswith("mailto:") and not (root / path).parent.joinpath(link).exists():
            yield f"{path}: link to {link}, which does not exist"
    for span in SPAN.findall(prose):
        if PLACEHOLDER.search(span):
            continue
        place, _, symbol = span.partition(":")
        if re.fullmatch(r"headrace(\.\w+)+", place) and not place.endswith(".toml"):
            if not _dotted_exists(place, symbol):
                yield f"{path}: `{span}` does not exist"
        elif _is_path(place, places):
            here = [match for one in _alternatives(place) for match in _matches(one, places)]
            if len(here) < len(_alternatives(place)):
                yield f"{path}: `{span}` does not exist"
            elif symbol and re.fullmatch(r"[A-Za-z_][\w.]*", symbol) and not any(_defines(m, symbol) for m in here):
                yield f"{path}: `{span}`: no {symbol} there"


def _is_path(span: str, places: tuple[Path, ...]) -> bool:
    if not re.fullmatch(r"[\w.\-/{},*]+", span) or span.startswith("/"):
        return False
    if "/" not in span:
        return span.endswith(ENDINGS)
    return span.endswith(ENDINGS) or any((place / span.partition("/")[0]).is_dir() for place in places)


def _alternatives(span: str) -> list[str]:
    match = re.search(r"\{([^}]*)\}", span)
    if match is None:
        return [span]
    return [
        one for part in match[1].split(",") for one in _alternatives(span[: match.start()] + part + span[match.end() :])
    ]


def _matches(span: str, places: tuple[Path, ...]) -> list[Path]:
    """At most one hit: the first place that has it. A bare file name may lie anywhere."""
    for place in places:
        if "*" in span:
            hits = sorted(place.glob(span.rstrip("/")))
        else:
            hits = [place / span] if (place / span).exists() else []
        if hits:
            return hits
    if "/" not in span:
        return [ROOT / path for path in files() if PurePosixPath(path).name == span][:1]
    return []


def _dotted_exists(dotted: str, symbol: str) -> bool:
    known = _known()
    module, rest = dotted, [symbol] if symbol else []
    while module and module not in known:
        module, _, last = module.rpartition(".")
        rest.insert(0, last)
    if module == "headrace" and len(rest) == 1:
        return rest[0] in public_names(known["headrace"])
    return bool(module) and (not rest or rest[0] in names_of(known[module].tree))


@functools.cache
def _known() -> dict[str, Module]:
    return {module.name: module for module in modules("src/headrace/")}


def _defines(path: Path, symbol: str) -> bool:
    if path.suffix != ".py":
        return True
    tree: ast.AST | None = ast.parse(path.read_text())
    for part in symbol.split("."):
        if tree is None or part not in names_of(tree):
            return False
        tree = next((n for n in ast.iter_child_nodes(tree) if getattr(n, "name", None) == part), None)
    return True


def names_of(tree: ast.AST) -> set[str]:
    """What a module or class defines at its top: functions, classes, assigned and imported names."""
    names: set[str] = set()
    for node in getattr(tree, "body", []):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign():
                names.update(n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import() | ast.ImportFrom():
                names.update(alias.asname or alias.name for alias in node.names)
            case ast.If() | ast.Try():
                names.update(names_of(node))
    return names


def public_names(package: Module) -> dict[str, tuple[str, str]]:
    """headrace's lazy names: public name -> (module, name there)."""
    for node in package.tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_NAMES" and node.value is not None:
            table: dict[str, str | tuple[str, str]] = ast.literal_eval(node.value)
            return {name: place if isinstance(place, tuple) else (place, name) for name, place in table.items()}
    raise AssertionError("headrace/__init__.py has no _NAMES")


def typed_names(package: Module) -> dict[str, tuple[str, str]]:
    """The same, as the block under TYPE_CHECKING says it."""
    block = next(n for n in package.tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _pages() -> set[str]:
    return {PurePosixPath(path).stem for path in files() if path.startswith("docs/errors/HR-")}


def test_every_error_code_has_a_page() -> None:
    expect_none(codes_without_page(modules("src/headrace/"), _pages()))


def test_every_page_has_an_error_code() -> None:
    expect_none(pages_without_code(modules("src/headrace/"), _pages()))


def test_every_page_has_its_title() -> None:
    expect_none(
        found
        for path in files()
        if path.startswith("docs/errors/HR-")
        for found in page_without_title(path, (ROOT / path).read_text())
    )


def test_what_documents_name_exists() -> None:
    expect_none(
        found for path in files() if path.endswith(".md") for found in missing_names(path, (ROOT / path).read_text())
    )


def test_public_names_are_typed_as_they_load() -> None:
    package = _known()["headrace"]
    assert typed_names(package) == public_names(package)


def test_public_names_exist_and_are_no_slices() -> None:
    known = _known()
    for name, (module, there) in public_names(known["headrace"]).items():
        assert module in known, f"{name}: no module {module}"
        assert there in names_of(known[module].tree), f"{name}: no {there} in {module}"
        assert f"headrace.{name}" not in known, f"hr.{name} would be the module as soon as anything imports it"


def test_a_code_without_page_and_a_page_without_code_are_found() -> None:
    source = (Module.of("src/headrace/a.py", "raise Error('HR-0101')"),)
    assert list(codes_without_page(source, set()))
    assert not list(codes_without_page(source, {"HR-0101"}))
    assert list(pages_without_code(source, {"HR-0101", "HR-0102"}))
    assert list(page_without_title("docs/errors/HR-0101.md", "# Something"))
    assert not list(page_without_title("docs/errors/HR-0101.md", "# HR-0101: a name that cannot be one\n"))


def test_a_name_that_leads_nowhere_is_found() -> None:
    for text in (
        "see `tests/tidy/nothing.py`",
        "see `nothing_at_all.py`",
        "see [it](docs/nothing.md)",
        "see `tests/tidy/tree.py:Nothing`",
        "see `core/{times,nothing}.py`",
        "see `headrace.nothing.at_all`",
        "see `headrace.core.times:nothing`",
        "see `tests/nothing/*.py`",
    ):
        assert list(missing_names("README.md", text)), text
    for text in (
        "see `tests/tidy/tree.py:Module`, `tests/tidy/tree.py:Module.of` and `core/times.py:Duration.parse`",
        "see `core/{times,errors}.py`, `tests/tidy/*.py`, `scripts/test --all`, `docs/errors/HR-NNNN.md`",
        "see `headrace.core.times.Duration`, `headrace.Topic`, [it](README.md), [out](https://example.org/x)",
        "`a/b` is a ratio, `/v1/decide` a route, `GET x.py` no path\n```\n`tests/nothing.py`\n```",
    ):
        assert not list(missing_names("README.md", text)), text
