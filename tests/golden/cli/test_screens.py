"""The command line says what its golden screens say; `python -m tests.golden.cli.screens` writes them anew."""

from __future__ import annotations

from tests.golden.cli.screens import HERE, screens


def test_every_screen_is_as_agreed() -> None:
    found = screens()
    assert {path.stem for path in HERE.glob("*.txt")} == set(found)
    for name, text in found.items():
        assert text == (HERE / f"{name}.txt").read_text(encoding="utf-8"), f"screen {name}"
