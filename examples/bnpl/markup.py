"""Pieces of the report's page: tables, cards, legends, and how numbers are written. Pure.

The one idea: what comes from data passes `escape` here, or in pictures.py, before it is part of the page.
"""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Collection, Iterable, Sequence

from pictures import Key, Picture


def card(picture: Picture, note: str = "") -> str:
    """A picture with its title and legend. note: below it."""
    below = note or picture.note
    small = f"<figcaption><small>{escape(below)}</small></figcaption>" if below else ""
    return (
        f'<figure class="card"><figcaption><b>{escape(picture.title)}</b></figcaption>{legend(picture.keys)}'
        f"{picture.svg}{small}</figure>"
    )


def legend(keys: Sequence[Key]) -> str:
    if not keys:
        return ""
    said = "".join(f'<span><i class="{escape(key.style)}"></i>{escape(key.name)}</span>' for key in keys)
    return f'<div class="legend">{said}</div>'


def table(names: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = ()) -> str:
    """Cells of text. numbers: the places of columns that are set to the right."""

    def cell(tag: str, place: int, text: str) -> str:
        return f"<{tag}{' class=number' if place in numbers else ''}>{escape(text)}</{tag}>"

    head = "".join(cell("th", place, name) for place, name in enumerate(names))
    body = "".join(f"<tr>{''.join(cell('td', i, text) for i, text in enumerate(row))}</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if names else ''}<tbody>{body}</tbody></table>"


def share(part: int, whole: int) -> str:
    """In percent; nothing of nothing is no share."""
    return f"{part / whole:.1%}" if whole else "–"


def money(cents: int) -> str:
    return f"{cents / 100:,.2f}"


def day(micros: int) -> str:
    """The day of an instant, in UTC."""
    at = dt.datetime.fromtimestamp(micros // 1_000_000, tz=dt.UTC)
    return f"{at.day} {at:%B %Y}"


def kind_words(kind: str) -> str:
    """A kind of truth, as one would say it."""
    return {"default": "will default"}.get(kind, kind.replace("_", " "))


def escape(text: str) -> str:
    return html.escape(text, quote=True)
