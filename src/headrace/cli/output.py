"""What commands print: JSON where asked for, else tables; progress on stderr. Touches stdout and stderr."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., object])


def output_option(command: _Command) -> _Command:
    """--output text|json, stable."""
    return click.option(
        "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print data."
    )(command)


def plain(value: object) -> object:
    """A value as JSON has it: instants in ISO 8601, decimals and bytes as text, enums by name."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case enum.Enum():
            return value.value
        case decimal.Decimal():
            return str(value)
        case dt.datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value)


def emit_json(value: object) -> None:
    click.echo(json.dumps(plain(value), ensure_ascii=False))


def emit_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns in text, as wide as they need."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in texts)]) for i, name in enumerate(names)]
    for row in [list(names), *texts]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    said = plain(value)
    if said is None:
        return "-"
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


class Bar:
    """Progress of a long piece of work on stderr: a bar on a terminal, nothing elsewhere."""

    def __init__(self, title: str) -> None:
        from rich.console import Console  # 40 ms, only where there is work long enough for a bar
        from rich.progress import Progress

        self._title = title
        self._progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
        self._tasks: dict[str, object] = {}

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(f"{self._title}: {stage}", total=total or None)
        self._progress.update(self._tasks[stage], completed=done, total=total or None)  # type: ignore[arg-type]  # its id
