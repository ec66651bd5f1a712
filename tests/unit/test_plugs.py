"""Plug points: what is listed exists, what is not there is said in one clear sentence."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import plugs
from headrace.core.errors import NotFoundError
from tests.tidy.tree import ROOT


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in plugs.PLUGS for name in plugs.names(kind)])
def test_every_plug_loads_what_it_names(kind: str, name: str) -> None:
    plug = plugs.PLUGS[kind][name]
    adapter = plugs.load(kind, name)
    assert getattr(adapter, "__name__", None) == plug.place.partition(":")[2]


def test_every_extra_is_declared_by_the_package() -> None:
    declared = importlib.metadata.metadata("headrace").get_all("Provides-Extra") or []
    assert {plug.extra for kind in plugs.PLUGS.values() for plug in kind.values()} - {""} <= set(declared)
    assert set(plugs.EXTRAS.values()) <= set(declared)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(NotFoundError) as refused:
        plugs.load("log", "sqlit")
    assert refused.value.code == "HR-0991"
    assert "'sqlite'" in refused.value.hint
    with pytest.raises(NotFoundError):
        plugs.names("logs")


def test_a_package_that_is_there_but_broken_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("import a_package_that_does_not_exist")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError):
        plugs.require("broken_library", wanted_by="a test")


def test_a_package_that_is_not_there_is_a_missing_extra_and_says_who_wants_it() -> None:
    """In a process that sees no site packages: there xgboost is missing, whatever this machine has."""
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p] + ['src']\n"
        "from headrace import plugs\n"
        "from headrace.core.errors import MissingExtraError\n"
        "try:\n    plugs.require('xgboost', wanted_by='trainer \"xgboost\"')\n"
        "except MissingExtraError as error:\n    print(error, error.package, error.extra)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [
        'HR-0990 trainer "xgboost" needs xgboost, which is not installed',
        "  hint: pip install 'headrace[ml]' xgboost ml",
        "",
    ]
