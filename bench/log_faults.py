"""Seeds of the log under a disk that forgets, tears and fails: what was acknowledged, and what of it was lost."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter

from headrace.testing.faults import Fault
from headrace.testing.simulation import Outcome, simulate

SEEDS, SEEDS_QUICK = 10_000, 200
FIRST_SEED = 20_260_101


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of BENCH `log-faults`; a seed that found something is in `others_seed`, to be run alone."""
    count = SEEDS_QUICK if quick else SEEDS
    total, fired, strange = Counter[str](), Counter[Fault](), None
    # New processes, not forked ones: SQLite's connections must not cross a fork.
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        for outcome in pool.imap_unordered(_one, range(FIRST_SEED, FIRST_SEED + count), chunksize=10):
            for name in (
                "steps",
                "acknowledged",
                "unknown_there",
                "unknown_absent",
                "lost",
                "duplicated",
                "half_batches",
            ):
                total[name] += getattr(outcome, name)
            total["others"] += len(outcome.others)
            fired += outcome.faults
            if outcome.violations:
                strange = outcome.seed
    figures: dict[str, float] = {
        "seeds": count,
        "faults": sum(fired.values()),
        **{f"faults_{fault.name.lower()}": fired[fault] for fault in Fault},
        **total,
    }
    for name in ("lost", "duplicated", "half_batches", "others"):
        figures[name] = total[name]
    if strange is not None:
        figures["others_seed"] = strange
    return {"figures": figures, "peers": {}}


def _one(seed: int) -> Outcome:
    return simulate(seed)
