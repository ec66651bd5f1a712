"""Seeds of checkpoint and replay on a disk that forgets, tears, fills up and rots: what was served before a crash, and
what is said after it.

`crash_points` counts the pairs (call at which the process ended, checkpoints that were whole then) that were reached,
`crash_point_least` how often the rarest of them was.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter

from headrace.testing.checkpoint_simulation import VIOLATIONS, Outcome, simulate

SEEDS, SEEDS_QUICK = 10_000, 200
FIRST_SEED = 20_260_101
COUNTED = (
    "steps",
    "events",
    "crashes",
    "restarts",
    "from_newest",
    "from_older",
    "from_nothing",
    "checkpoints",
    "checkpoints_failed",
    "refused_corrupt",
    "served",
    "compared",
    "compared_at_end",
    "refused_old",
    *VIOLATIONS,
)


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of `checkpoint-faults`; a seed that found something is in `others_seed`, to be run alone."""
    count = SEEDS_QUICK if quick else SEEDS
    total, fired, ended, strange = Counter[str](), Counter[str](), Counter[tuple[str, int]](), None
    # New processes, not forked ones: the compiled kernel's threads and locks must not cross a fork.
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        for outcome in pool.imap_unordered(simulate, range(FIRST_SEED, FIRST_SEED + count), chunksize=10):
            _add(outcome, total, fired, ended)
            if outcome.violations:
                strange = outcome.seed
                print(f"seed {outcome.seed}: {outcome.others + outcome.told}", flush=True)
    figures: dict[str, float] = {
        "seeds": count,
        "faults": sum(fired.values()),
        **{f"faults_{name}": fired[name] for name in sorted(fired)},
        **{name: total[name] for name in (*COUNTED, "others")},
        "crash_points": len(ended),
        "crash_point_least": min(ended.values()),
    }
    if strange is not None:
        figures["others_seed"] = strange
    return {"figures": figures, "peers": {}}


def _add(outcome: Outcome, total: Counter[str], fired: Counter[str], ended: Counter[tuple[str, int]]) -> None:
    for name in COUNTED:
        total[name] += getattr(outcome, name)
    total["others"] += len(outcome.others)
    fired += outcome.faults
    ended += outcome.ended
