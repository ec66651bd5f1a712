"""A virtual environment of a peer's own under build/, made when first asked for, and anew where other versions are
wanted. Touches build/ and the package index."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build"


def peer_environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The Python of build/peers-NAME. Raises: CalledProcessError where the packages cannot be had."""
    place = BUILD / f"peers-{name}"
    python, stamp = place / "bin" / "python", place / "requirements"
    wanted = "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making {place} with {', '.join(requirements)}", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        subprocess.run(install, check=True, stdout=sys.stderr)
        stamp.write_text(wanted)
    return python
