"""The README's and the first guide's commands, run as they stand in an empty folder by a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.needs import requires
from tests.tidy.tree import ROOT

FENCE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINES_MAX = 30  # a newcomer's whole way, installation included


def section(document: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", (ROOT / document).read_text(), re.M | re.DOTALL)
    assert found is not None, f"{document} has no section {title!r}"
    return found[1]


def script(blocks: list[tuple[str, str]]) -> str:
    """One shell script of (language, text); Python runs where it stands, in the folder that the shell is in."""
    parts = [text if language == "sh" else f"python - <<'PYTHON'\n{text}PYTHON\n" for language, text in blocks]
    return "set -eu\n" + "".join(parts)


def run(text: str, folder: Path) -> str:
    """Stdout; this environment's `headrace` and `python` are first on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_newcomers_way_works_and_is_short(tmp_path: Path) -> None:
    requires("sklearn")
    install, *rest = FENCE.findall(section("README.md", "From nothing to a decision"))
    assert "pip install" in install[1]
    lines = [line for _, block in [install, *rest] for line in block.splitlines() if line.strip()]
    assert len(lines) <= LINES_MAX, f"{len(lines)} lines"
    out = run(script(rest), tmp_path)
    assert "+ view merchant (version 1)" in out
    assert "taken 4,799" in out
    assert "decline" in out
    assert "MERCHANT_HISTORY" in out
    assert "compared 1, mismatched 0" in out


def test_the_first_guides_commands_work_in_order(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guides" / "your-first-decision.md").read_text()
    out = run(script(FENCE.findall(text)), tmp_path)
    assert "compared 2, mismatched 0" in out
    assert "+ view spending (version 1)" in out
