"""Fingerprints: the hash of what a definition means, not of its text. Pure."""

from __future__ import annotations

import hashlib
import json

LENGTH = 16  # hex digits shown and stored: 64 bits, for some thousands of definitions


def fingerprint(meaning: object) -> str:
    """Of a meaning made of JSON values: equal meanings, equal fingerprints, on any machine.

    Floats are written as Python's shortest text that reads back to the same bits. Raises: TypeError for other values.
    """
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
