"""The command: mutates one file, or every target, and says what survived.

    python -m tests.mutation src/headrace/log/plan.py --tests tests/unit/log/test_plan.py
    python -m tests.mutation --all

Exit status 1 where too few were caught, or a guard that raises survived; 2 where the tests fail unmutated.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

from tests.mutation.mutants import Mutant
from tests.mutation.run import Result, UnmutatedFailError, run
from tests.mutation.targets import TARGETS, THRESHOLD, Target


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description="Mutates a file; its tests must notice."
    )
    parser.add_argument("path", nargs="?", help="the file to mutate; a target's own tests are the default")
    parser.add_argument("--tests", nargs="+", help="what pytest runs for each mutant")
    parser.add_argument("--all", action="store_true", help="every target in tests/mutation/targets.py")
    parser.add_argument(
        "--threshold", type=float, help=f"the share to catch; {THRESHOLD} unless the target says otherwise"
    )
    parser.add_argument("--sample", type=int, metavar="COUNT", help="so many mutants, drawn by a fixed seed")
    parser.add_argument("--seconds", type=float, help="start no mutant after so many seconds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    parser.add_argument("--quiet", action="store_true", help="survivors only")
    asked = parser.parse_args(arguments)
    # A run that is asked to end takes its mutants with it: each is a process group of its own, which no signal reaches.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    targets = list(TARGETS) if asked.all else [t for t in TARGETS if t.path == asked.path]
    if asked.tests and asked.path:
        targets = [Target(path=asked.path, tests=tuple(asked.tests))]
    if not targets:
        parser.error("name a target's path, or a path and its --tests, or --all")
    failed = False
    for target in targets:
        began = time.monotonic()

        def tell(mutant: Mutant, passed: bool, path: str = target.path) -> None:
            if passed or not asked.quiet:
                print(outcome(path, mutant, passed), flush=True)

        try:
            result = run(target, sample=asked.sample, seconds=asked.seconds, jobs=asked.jobs, tell=tell)
        except UnmutatedFailError as error:
            print(error, file=sys.stderr)
            return 2
        threshold = target.threshold if asked.threshold is None else asked.threshold
        print(summary(result, threshold=threshold, seconds=time.monotonic() - began), flush=True)
        failed = failed or result.share < threshold or bool(result.guards_survived)
    return 1 if failed else 0


def outcome(path: str, mutant: Mutant, passed: bool) -> str:
    word = "survived" if passed else "killed"
    return f"{word:<9} {mutant.kind:<10} {path}:{mutant.line}  {mutant.was}  ->  {mutant.becomes}"


def summary(result: Result, *, threshold: float, seconds: float) -> str:
    ran = len(result.killed) + len(result.survived)
    return (
        f"{result.target.path}: {len(result.killed)} of {ran} mutants killed "
        f"({result.share:.1%}, at least {threshold:.0%}), {len(result.guards_survived)} guards survived, "
        f"{result.mutants} mutants in all, {seconds:.0f} s" + (", stopped as the time was up" if result.stopped else "")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
