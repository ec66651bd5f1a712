"""What is declared and what is in force, as the catalog sees it: kind, name, fingerprint, needs. Frozen, pure.

The catalog knows no slice: a definition comes to it as a `Declared`, and goes into the log as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

KINDS = ("topic", "label", "view", "model", "decision")  # in order of need: each kind refers only to kinds before it


PROTECTED = "protected"  # in a meaning: true says that it is retired with an approval only


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change does, in words. approval: the text that approves it; "" where none is needed."""

    says: str
    approval: str = ""


Explain = Callable[[Mapping[str, Json], Mapping[str, Json]], tuple[Effect, ...]]  # (before, after) -> what it does


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One definition. meaning: canonical JSON text. needs: (kind, name) of what it refers to.

    The meaning may say more than the fingerprint covers, as who looks after a topic: a change of that alone is a step,
    raises no version, and changes nothing that is built on it. assumed: what a meaning in force is taken to say of
    names that were not kept when it was applied. explain: what a change from the meaning in force does; by default
    where the two differ.
    """

    kind: str
    name: str
    fingerprint: str
    meaning: str
    needs: tuple[tuple[str, str], ...] = ()
    assumed: Mapping[str, Json] = field(default_factory=dict, compare=False)
    explain: Explain | None = field(default=None, compare=False)

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
