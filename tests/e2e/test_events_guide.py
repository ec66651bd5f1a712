"""The events guide's commands, run as they stand in an empty folder by a shell, on a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.testing.kafka import Machine
from tests.e2e.test_readme import FENCE, run, script
from tests.tidy.tree import ROOT


@pytest.mark.slow
@pytest.mark.kafka
def test_the_guides_commands_work_in_order(tmp_path: Path, kafka_machine: Machine) -> None:
    text = (ROOT / "docs" / "guides" / "events.md").read_text()
    # Whatever fails in between, the cluster ends with the shell; its folder is the test's.
    first = (
        f"export HEADRACE_DEV_DIR={tmp_path}/dev\n"
        "trap 'headrace dev kafka down --name events --delete >/dev/null 2>&1 || true' EXIT\n"
    )
    out = run(first + script(FENCE.findall(text)), tmp_path)
    assert "Placed(partition=" in out
    assert "events 2001" in out and "cents 2500001" in out
    assert "handled 2001" in out
    assert "held 20 ValueError no such customer" in out
    assert "released 20" in out and "now handled 20" in out
    assert "in memory ['1.00']" in out
