"""The command line's screens, as they were agreed: every command's text, with a clock and ids that never change.

    python -m tests.golden.cli.screens      writes them anew, after a change that is meant

Touches: a temporary folder, the files beside this one.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path

from headrace.cli.main import main
from tests.e2e.shop import DEFINITIONS, lines, make, order

HERE = Path(__file__).resolve().parent
CHANGED = DEFINITIONS.replace('hr.count().over("1d", "30d")', 'hr.count().over("1d", "7d")').replace("> 20", "> 30")
GIVEN_AWAY = DEFINITIONS.replace(
    'event_time="at", partitions=2', 'event_time="at", partitions=4, retention="90d", owner="shop", quota="5MB/s"'
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def screens() -> dict[str, str]:
    """Name -> the commands with what they printed, stdout and stderr, and their exit status. Instants are masked."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = make(Path(temporary) / "shop")
        history = lines(
            folder / "history.ndjson", [order(f"h{i}", i % 3, at=f"2026-01-0{i + 1}T10:00:00Z") for i in range(6)]
        )
        ahead = lines(folder / "ahead.ndjson", [order("late", at="2126-01-01T00:00:00Z")])
        request = json.dumps(order("r1", 1, at="2026-01-09T10:00:00Z"))
        found = {
            "help": _said(folder, "--help"),
            "plan": _said(folder, "plan"),
            "apply": _said(folder, "apply", "--yes"),
            "import": _said(folder, "import", "orders", str(history)),
            "produce": _said(folder, "produce", "orders", str(ahead)),
            "decide": _said(folder, "decide", "checkout", request),
            "topics": _said(folder, "topics", "list", "--all"),
            "topics_describe": _said(folder, "topics", "describe", "orders"),
            "topics_tail": _said(folder, "topics", "tail", "orders", "--where", "_verdict == 'ahead' and amount > 1"),
            "topics_lag": _said(folder, "topics", "lag", "visits", "--group", "mailer"),
            "topics_drop": _said(folder, "topics", "drop", "orders", "--yes"),
            "wrong_filter": _said(folder, "topics", "tail", "orders", "--where", "amuont > 1"),
            "quarantine": _said(folder, "quarantine", "list", "orders"),
            "replay": _said(folder, "decisions", "replay", "checkout"),
            "doctor": _said(folder, "doctor"),
            "unknown_name": _said(folder, "decide", "chekout", request),
            "wrong_field": _said(folder, "decide", "checkout", '{"amuont": "1.00"}'),
        }
        make(folder, CHANGED)
        found["plan_changed"] = _said(folder, "plan")
        make(folder, GIVEN_AWAY)
        found["plan_approvals"] = _said(folder, "plan")
        found["apply_unapproved"] = _said(folder, "apply", "--yes", "--approve", "orders.partitions")
        return found


def _said(folder: Path, *arguments: str) -> str:
    out = io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(["--project", str(folder), *arguments])
        except SystemExit as left:
            status = left.code
    shown = " ".join(arguments).replace(str(folder), "shop")
    text = out.getvalue().replace(str(folder), "shop")
    return TIME.sub("<instant>", f"$ headrace {shown}\n{text}exit {status}\n")


def refresh() -> None:
    for name, text in screens().items():
        (HERE / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"wrote {name}.txt", file=sys.stderr)


if __name__ == "__main__":
    refresh()
