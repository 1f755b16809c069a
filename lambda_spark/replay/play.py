"""`replay`: event files as a live feed into a folder or a Kafka topic, in event-time order, at a chosen pace.

The position is kept in a file, so that a replay which was stopped goes on where it was: into a folder every line comes
once however it was stopped; into a topic at least once, and ingestion drops the repeats.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lambda_spark.cli.arguments import parse
from lambda_spark.errors import LambdaSparkError, UsageError
from lambda_spark.replay.feed import Day, Disturbances, Feed, event_files
from lambda_spark.replay.sinks import FolderSink, Sink, TopicSink
from lambda_spark.settings import KafkaSettings, load_settings
from lambda_spark.text import clean

_SAY_EVERY = 2.0
"""Seconds between two lines of progress."""


@dataclass(slots=True)
class Position:
    """How far a replay is: `done` lines are delivered, those before `planned` perhaps."""

    file: Path
    replay: str
    """Which files and options it is about."""
    done: int = 0
    planned: int = 0

    @classmethod
    def of(cls, file: Path, replay: str, *, restart: bool) -> Position:
        """The position that a file holds. Raises UsageError where it is another replay's."""
        if restart or not file.exists():
            return cls(file, replay)
        try:
            entry = json.loads(file.read_text())
            found = cls(file, entry["replay"], int(entry["done"]), int(entry["planned"]))
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{file} is no position of a replay; name another with --position") from error
        if found.replay != replay:
            raise UsageError(
                f"{file} is the position of another replay (other files or options); begin anew with --restart, or "
                "name another with --position"
            )
        return found

    def write(self, done: int, planned: int) -> None:
        self.done, self.planned = done, planned
        draft = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        draft.write_text(json.dumps({"replay": self.replay, "done": done, "planned": planned}))
        draft.replace(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """So many lines a second, or so many times as fast as they happened."""

    rate: float | None = None
    speed: float | None = None

    def due(self, day: Day, at: int, lines: int, since_start: float, begin: float) -> int:
        """Up to where a day's lines from `at` on are due, `lines` having been delivered since the start, which was
        when the feed's clock showed `begin`."""
        if self.rate is not None:
            return min(len(day), at + max(0, int(self.rate * since_start) - lines))
        assert self.speed is not None
        return max(at, int(np.searchsorted(day.seconds, begin + self.speed * since_start, side="right")))


def play(
    feed: Feed,
    sink: Sink,
    pace: Pace,
    position: Position,
    *,
    slice_seconds: float,
    progress: Callable[[int, float], None],
) -> int:
    """Deliver the feed from a position on; returns the number of lines delivered.

    `progress` gets the lines done and the feed's clock in epoch seconds, every slice.
    """
    started = time.monotonic()
    first = position.done
    begin: float | None = None
    number = 0
    for day in feed.days():
        at = max(0, position.done - number)
        while at < len(day):
            begin = float(day.seconds[at]) if begin is None else begin
            now = time.monotonic() - started
            until = pace.due(day, at, position.done - first, now + slice_seconds, begin)
            # What was being delivered when it was stopped is delivered within the same bounds.
            until = min(position.planned - number, len(day)) if position.planned > number + at else until
            if until > at:
                position.write(number + at, number + until)
                sink.deliver(day, at, until, number + at)
                at = until
                position.write(number + at, number + at)
                progress(position.done, float(day.seconds[at - 1]))
            ahead = _seconds_ahead(pace, day, at, position.done - first, begin) - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(min(ahead, slice_seconds))
        number += len(day)
    return position.done - first


def _seconds_ahead(pace: Pace, day: Day, at: int, lines: int, begin: float) -> float:
    """When, in seconds after the start, the next line is due."""
    if pace.rate is not None:
        return lines / pace.rate
    assert pace.speed is not None
    next_second = day.seconds[at] if at < len(day) else day.seconds[-1]
    return float(next_second - begin) / pace.speed


def main(options: list[str]) -> int:
    try:
        arguments = parse("replay", options)
        settings = load_settings(arguments.conf_file, arguments.assignments).kafka
        return _replay(arguments, settings)
    except LambdaSparkError as error:
        print(clean(f"replay: {error}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nreplay: stopped; the next start goes on from there", flush=True)
        return 128 + signal.SIGINT


def _replay(arguments: argparse.Namespace, settings: KafkaSettings) -> int:
    if (arguments.to is None) == (not settings.topic):
        raise UsageError("name where to play to: either --to FOLDER or --topic NAME")
    if settings.topic and not settings.bootstrap_servers:
        raise UsageError("--topic needs --bootstrap-servers (or the setting kafka.bootstrap_servers)")
    began = time.monotonic()
    files = event_files(arguments.sources)
    how = Disturbances(
        repeats=arguments.repeats, disorder=arguments.disorder, lateness=arguments.lateness, seed=arguments.seed
    )
    about = [[file.name, file.stat().st_size] for file in files]
    replay = hashlib.sha256(json.dumps([about, asdict(how)]).encode()).hexdigest()[:12]
    if arguments.to is not None:
        arguments.to.mkdir(parents=True, exist_ok=True)
    default = arguments.to / "_replay.json" if arguments.to is not None else Path(f"replay-{settings.topic}.json")
    position = Position.of(arguments.position or default, replay, restart=arguments.restart)
    with tempfile.TemporaryDirectory(prefix="lambda-spark-replay-") as folder:
        feed = Feed(Path(folder))
        for file in feed.read(files, how):
            _say(began, f"reading {file}")
        if position.done >= feed.lines:
            print(f"replay: all {feed.lines:,} lines were played before; --restart plays them again")
            return 0
        to_where = arguments.to if arguments.to is not None else f"topic {settings.topic}"
        left = feed.lines - position.done
        _say(began, f"{left:,} of {feed.lines:,} lines to play into {to_where}")
        sink: Sink = (
            FolderSink(arguments.to, feed.layouts, replay)
            if arguments.to is not None
            else TopicSink(settings, feed.layouts)
        )
        started = time.monotonic()
        played = play(
            feed,
            sink,
            Pace(rate=arguments.rate, speed=arguments.speed),
            position,
            slice_seconds=arguments.slice,
            progress=_progress(began, feed.lines, position.done),
        )
    seconds = time.monotonic() - started
    print(f"replay: {played:,} lines in {seconds:.1f} s ({played / seconds:,.0f} a second)", flush=True)
    return 0


def _progress(began: float, lines: int, first: int) -> Callable[[int, float], None]:
    said = started = time.monotonic()

    def progress(done: int, clock: float) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _SAY_EVERY:
            said = now
            moment = datetime.fromtimestamp(clock, UTC)
            rate = (done - first) / (now - started)
            _say(began, f"{done:,} of {lines:,} lines, up to {moment:%Y-%m-%d %H:%M:%S} ({rate:,.0f} a second)")

    return progress


def _say(began: float, text: str) -> None:
    print(f"[{time.monotonic() - began:6.1f} s] {clean(text)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
