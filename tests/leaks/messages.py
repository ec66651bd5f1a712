"""What each refusal says, as one text: the golden file beside it. Made anew by `python -m tests.leaks.messages`."""

from __future__ import annotations

from pathlib import Path

from headrace.core.errors import DefinitionError
from tests.leaks.definitions import PAIRS

GOLDEN = Path(__file__).parent / "messages.txt"


def messages() -> str:
    """Every pair's name and its leaky half's error, as a user reads it."""
    said = []
    for pair in PAIRS:
        try:
            pair.leaky()
        except DefinitionError as error:
            said.append(f"# {pair.name}\n{type(error).__name__}: {error}\n")
    return "\n".join(said)


if __name__ == "__main__":
    GOLDEN.write_text(messages())
