"""The serving guide's commands, run as they stand in an empty folder by a shell, at a port that is free."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.e2e.test_readme import FENCE, run, script
from tests.needs import requires, requires_program
from tests.tidy.tree import ROOT

requires("uvicorn", "httptools", "prometheus_client")


def test_the_guides_commands_work_in_order(tmp_path: Path) -> None:
    requires_program("curl")
    text = (ROOT / "docs" / "guides" / "serving.md").read_text()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Whatever fails in between, the server ends with the shell.
    ending = "set -m; trap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT\n"
    out = run(ending + script(FENCE.findall(text)).replace("8000", str(port)), tmp_path)
    assert out.count('"outcome":"approve"') == 3
    assert out.count('"repeated":true') == 1
    assert '"code":"HR-0710"' in out
    assert '"features":{"customer_activity":{"count_1d":1' in out
    assert '"verdicts":{"accepted":1}' in out
    assert '"field":"customer_id"' in out
    assert '"row":0' in out
    assert '"code":"HR-1009"' in out
    assert out.count('"view":"customer_activity"') == 3
    assert "till" in out
    assert '"message":"stopped"' in (tmp_path / "shop" / "server.log").read_text()
