"""Random definitions over random logs: oracle, replay and online state must agree to the bit.

A pair is a visible event of a topic that the view reads, considered by the oracle for one query (a request or a plain
read), however many features the view has; `pairs` counts these. `values` are the published values that were compared,
each with its reason, with the replay's and, where the online state answers, with its. `large_pairs` are counted apart:
events of the request's entity considered by brute force over arrays, on logs of many chunks.

A difference is printed with its seed, made as small as it gets; `HEADRACE_FUZZ_SEED` sets where the seeds begin. Uses
as many processes as there are cores.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
import traceback
from dataclasses import asdict

from headrace.testing.agreement import differences, large_differences
from headrace.testing.generate import story
from headrace.testing.questions import Tally
from headrace.testing.shrink import shrink, told

FIRST_SEED = 1
SEEDS_MAX = 20_000
PAIRS = 10_500_000
LARGE_PAIRS = 10_500_000
SECONDS_MAX = 14 * 60.0
QUICK_SECONDS = 30.0
SIZES = (20, 30, 40, 60, None, None, None, 400, 800)  # of stories; None is the generator's choice, 10 to 200 events
LARGE_EVENTS = 40_000
LARGE_QUERIES = 300
EVERY_LARGE = 12  # one seed in so many is a large log

Result = tuple[Tally, Tally, list[str]]


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of BENCH `fuzz`; no peers. quick: for half a minute, whatever pairs that makes."""
    first = int(os.environ.get("HEADRACE_FUZZ_SEED", str(FIRST_SEED)))
    limit = time.monotonic() + (QUICK_SECONDS if quick else SECONDS_MAX)
    small, large, told_of, seeds = Tally(), Tally(), [], 0
    # spawn: a forked child would share the compiled kernel's threads and locks
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for one, other, found in pool.imap_unordered(fuzz, range(first, first + SEEDS_MAX)):
            seeds += 1
            _add(small, one)
            _add(large, other)
            told_of += found
            for text in found:
                print(text, flush=True)
            enough = not quick and small.pairs >= PAIRS and large.pairs >= LARGE_PAIRS
            if enough or time.monotonic() > limit:
                break
        pool.terminate()
    figures = {f"large_{name}": value for name, value in asdict(large).items() if name in ("pairs", "values")}
    return {
        "figures": {
            "pairs": small.pairs,
            "differences": len(told_of),
            "seed": first,
            "seeds": seeds,
            "queries": small.queries,
            "values": small.values,
            "events_in_windows": small.members,
            "refused_too_old": small.refused,
            **figures,
        }
    }


def fuzz(seed: int) -> Result:
    """One seed: what was compared, in small and in large, and what differed, ready to be printed."""
    small, large = Tally(), Tally()
    try:
        if seed % EVERY_LARGE == 0:
            return small, large, large_differences(seed, LARGE_EVENTS, LARGE_QUERIES, large)
        return small, large, _differences(seed, small)
    except Exception:  # noqa: BLE001 - whatever breaks is what this seed found, and the others go on
        return small, large, [f"seed {seed}: {traceback.format_exc()}"]


def _differences(seed: int, tally: Tally) -> list[str]:
    size = SIZES[seed % len(SIZES)]
    made = story(seed, size=size, views=1 if size else 2)
    found = differences(made, random.Random(seed), tally, share=0.4 if size else 1.0)
    texts = [told(*shrink(made, found[0]))] if found else []
    return texts + [str(difference) for difference in found[1:]]


def _add(total: Tally, one: Tally) -> None:
    for name, value in asdict(one).items():
        setattr(total, name, getattr(total, name) + value)
