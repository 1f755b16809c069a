"""Command `replay` that delivers given shares of the lines twice, out of order or late.

    python -m tests.replay.disturbed replay SOURCE --repeats 0.1 --disorder 0.1 --lateness 0.05 [options of replay]

The same shares and the same seed always disturb the same lines, so that a stopped replay can continue.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from lambda_spark.replay import play
from lambda_spark.replay.feed import Feed

DISTURBED = {
    "program": (sys.executable, "-m", "tests.replay.disturbed"),
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
}
"""Arguments with which the class `Command` starts this module instead of `./spark-submit.sh`."""
DAY = 86_400
DISORDER, LATENESS, REPEAT = (1, 60), (3_600, 2 * DAY), (0, 3_600)
"""Smallest and largest delay, in seconds, of a line out of order, of a late line, and of a second delivery."""


class DisturbedFeed(Feed):
    """A feed of event lines that delivers given shares of them twice, out of order or late."""

    def __init__(self, folder, *, repeats=0.0, disorder=0.0, lateness=0.0, seed=0):
        super().__init__(folder)
        self._repeats = repeats
        self._delays = ((disorder, DISORDER), (lateness, LATENESS))
        self._rng = np.random.default_rng(seed)

    def put_aside(self, lines, seconds, layout):
        count = len(lines)
        for share, delay in self._delays:
            is_delayed = self._rng.random(count) < share
            seconds = seconds + np.where(is_delayed, self._rng.integers(*delay, count, endpoint=True), 0)
        repeated = np.flatnonzero(self._rng.random(count) < self._repeats)
        again = seconds[repeated] + self._rng.integers(*REPEAT, len(repeated), endpoint=True)
        rows = np.concatenate([np.arange(count), repeated])
        super().put_aside(lines.take(pa.array(rows)), np.concatenate([seconds, again]), layout)


def main(arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("repeats", "disorder", "lateness"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    shares, options = parser.parse_known_args(arguments)
    play.Feed = partial(DisturbedFeed, **vars(shares))
    return play.main(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
