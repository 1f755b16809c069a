"""Command `replay`, which plays event files into a folder or Kafka topic by event time, at a chosen pace.

A file keeps the replay's position, so that a stopped replay can continue. A folder gets every line exactly once, even
if the replay was killed and started again. A topic gets every line at least once, and ingestion drops the repeats.
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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lambda_spark.cli.arguments import parse, settings_of
from lambda_spark.errors import LambdaSparkError, UsageError
from lambda_spark.replay.feed import Day, Feed, event_files
from lambda_spark.replay.sinks import FolderSink, Sink, TopicSink
from lambda_spark.settings import KafkaSettings
from lambda_spark.text import strip_control_characters

_PROGRESS_INTERVAL = 2.0
"""Minimum number of seconds between two progress messages of a replay."""


@dataclass(slots=True)
class Position:
    """Position of a replay, which says how many lines of the feed are delivered. A file stores the position."""

    file: Path
    replay: str
    """Hash of the names and sizes of the event files that the replay plays."""
    done: int = 0
    """Number of lines that the replay has delivered."""
    planned: int = 0
    """Number of delivered lines after the delivery in progress.

    If the replay is killed, the lines from `done` to `planned` may be delivered or not.
    """

    @classmethod
    def of(cls, file: Path, replay: str, *, restart: bool) -> Position:
        """Read the position of a replay from a file.

        Args:
            file: File that stores the position.
            replay: Hash of the names and sizes of the event files.
            restart: Whether to ignore the stored position and begin at the first line.

        Returns:
            The stored position, or the begin of the feed if the file does not exist.

        Raises:
            UsageError: The file holds no position, or the position of a replay that plays other event files.
        """
        if restart or not file.exists():
            return cls(file, replay)
        try:
            entry = json.loads(file.read_text())
            position = cls(file, entry["replay"], int(entry["done"]), int(entry["planned"]))
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(
                f"{file} holds no position of a replay; name another file with --position, or play from the beginning "
                "with --restart"
            ) from error
        if position.replay != replay:
            raise UsageError(
                f"{file} is the position of another replay (of other files); play from the beginning with --restart, "
                "or name another file with --position"
            )
        return position

    def write(self, done: int, planned: int) -> None:
        """Set the position, and replace the file that stores the position in one step."""
        self.done, self.planned = done, planned
        draft = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        draft.write_text(json.dumps({"replay": self.replay, "done": done, "planned": planned}))
        draft.replace(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Pace of a replay, which is either a rate or a speed."""

    rate: float | None = None
    """Number of lines that the replay delivers in a second."""
    speed: float | None = None
    """Speed of the replay, as a multiple of the speed at which the events happened."""

    def due(self, day: Day, at: int, lines: int, since_start: float, begin: float) -> int:
        """Find the lines of a day that are due for delivery.

        Args:
            day: Lines of a day.
            at: Index of the day's first line that is not delivered yet.
            lines: Number of lines delivered since the start of the replay.
            since_start: Number of seconds since the start of the replay.
            begin: Event time of the first line delivered since the start of the replay, in epoch seconds.

        Returns:
            The index after the day's last line that is due, or `at` if no line is due.
        """
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
    """Deliver the lines of a feed to a folder or topic, from a stored position on.

    Args:
        feed: The feed, after it has read all event files.
        sink: The folder or topic that receives the lines.
        pace: Pace of the delivery.
        position: Position at which to begin. The replay stores its position before and after each delivery.
        slice_seconds: Number of seconds between two deliveries. Each delivery has the lines that are due in these
            seconds.
        progress: Function that receives the number of delivered lines, and the time of the last line in epoch seconds.

    Returns:
        The number of lines that this call delivered.
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
            # Repeat an interrupted delivery with the same first and last line. So the sink for folders can recognise
            # the files that it has already written.
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
    """Compute when the next line is due, in seconds after the start of the replay."""
    if pace.rate is not None:
        return lines / pace.rate
    assert pace.speed is not None
    next_second = day.seconds[at] if at < len(day) else day.seconds[-1]
    return float(next_second - begin) / pace.speed


def main(options: list[str]) -> int:
    """Run the command `replay` with the given options.

    Args:
        options: The options of the command line.

    Returns:
        The exit code.
    """
    try:
        arguments = parse("replay", options)
        settings = settings_of(arguments).kafka
        return _replay(arguments, settings)
    except LambdaSparkError as error:
        print(strip_control_characters(f"replay: {error}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nreplay: stopped; start it again to continue from here", flush=True)
        return 128 + signal.SIGINT


def _replay(arguments: argparse.Namespace, settings: KafkaSettings) -> int:
    if (arguments.to is None) == (not settings.topic):
        raise UsageError("name one place to play to: either --to FOLDER or --topic NAME")
    if settings.topic and not settings.bootstrap_servers:
        raise UsageError("--topic needs --bootstrap-servers HOST:PORT (or the setting kafka.bootstrap_servers)")
    began = time.monotonic()
    files = event_files(arguments.sources)
    names_and_sizes = [[file.name, file.stat().st_size] for file in files]
    replay = hashlib.sha256(json.dumps(names_and_sizes).encode()).hexdigest()[:12]
    if arguments.to is not None:
        arguments.to.mkdir(parents=True, exist_ok=True)
    default = arguments.to / "_replay.json" if arguments.to is not None else Path(f"replay-{settings.topic}.json")
    position = Position.of(arguments.position or default, replay, restart=arguments.restart)
    with tempfile.TemporaryDirectory(prefix="lambda-spark-replay-") as folder:
        feed = Feed(Path(folder))
        for file in feed.read(files):
            _print(began, f"reading {file}")
        if position.done >= feed.lines:
            print(f"replay: all {feed.lines:,} lines were played before; --restart plays them again")
            return 0
        destination = arguments.to if arguments.to is not None else f"topic {settings.topic}"
        remaining = feed.lines - position.done
        _print(began, f"{remaining:,} of {feed.lines:,} lines to play into {destination}")
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
    printed = started = time.monotonic()

    def progress(done: int, clock: float) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed >= _PROGRESS_INTERVAL:
            printed = now
            moment = datetime.fromtimestamp(clock, UTC)
            rate = (done - first) / (now - started)
            _print(began, f"{done:,} of {lines:,} lines, up to {moment:%Y-%m-%d %H:%M:%S} ({rate:,.0f} a second)")

    return progress


def _print(began: float, text: str) -> None:
    print(f"[{time.monotonic() - began:6.1f} s] {strip_control_characters(text)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
