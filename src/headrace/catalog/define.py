"""What is declared and what is in force, as the catalog sees it: kind, name, fingerprint, needs. Frozen, pure.

The catalog knows no slice: a definition comes to it as a `Declared`, and goes into the log as one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KINDS = ("topic", "label", "view", "model", "decision")  # in order of need: each kind refers only to kinds before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One definition. meaning: canonical JSON text. needs: (kind, name) of what it refers to."""

    kind: str
    name: str
    fingerprint: str
    meaning: str
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """One definition as applied. version: counts from 1; raised by each change of meaning."""

    kind: str
    name: str
    version: int
    fingerprint: str
    meaning: str

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything in force, by (kind, name)."""

    entries: dict[tuple[str, str], InForce] = field(default_factory=dict)
