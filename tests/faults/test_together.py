"""Test of the project's promises 2 and 3: with all jobs at once, no job fails and each event is counted once.

Events keep arriving while `ingest` and `similarity` run as streams. Meanwhile other jobs renew lists and trends, query
and verify tables, compact and delete files, and forget users:

    MINUTES=60 ./spark-submit.sh test tests/faults/test_together.py -m long -s

MINUTES is how long events arrive. All processes run the real command, except the one that replays events with repeats
and disorder. The test prints how long each job took. For each sixth of the time it also prints the streams' memory use
and the seconds of their micro-batches.
"""

from __future__ import annotations

import csv
import itertools
import os
import random
import re
import signal
import statistics
import subprocess
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from lambda_spark.errors import JobRunningError
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS
from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.commands import Command, ended_at_last
from tests.replay.disturbed import DISTURBED

pytestmark = [pytest.mark.process, pytest.mark.long]

MINUTES = float(os.environ.get("MINUTES", "4"))
RATE = 20
PAUSE = MINUTES / 2
"""Seconds between two rounds of jobs. Longer tests have longer pauses, so that the machine is sometimes idle."""
PARTS = 6
SMALL = (
    "--driver-memory 1g --conf spark.sql.shuffle.partitions=2 --conf spark.databricks.delta.snapshotPartitions=1 "
    "--conf spark.driver.defaultJavaOptions=-XX:+UseSerialGC"
)
QUERY = "select (select count(*) from events) - (select count(distinct event_id) from events) as counted_twice"
"""A query that reads a table twice. Both reads must see the same version."""


@dataclass
class Watched:
    """A running stream job, with samples of its memory use and the times of its micro-batches."""

    command: Command
    started: float = field(default_factory=time.monotonic)
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Samples of memory: seconds since the start, and the resident memory of the process in bytes."""
    live: list[tuple[int, int]] = field(default_factory=list)
    """Samples after each sixth of the test's time: MB of Java heap in use, and MB of Java classes."""

    def sample_memory(self) -> None:
        status = f"/proc/{self.command.process.pid}/status"
        with open(status) as text:
            kilobytes = int(re.search(r"VmRSS:\s+(\d+)", text.read())[1])
        self.memory.append((time.monotonic() - self.started, kilobytes * 1024))

    def sample_live_heap(self) -> None:
        """Measure the Java heap in use after a garbage collection.

        Java keeps memory that it no longer uses, so the resident memory cannot show a leak.
        """
        self._ask_java("GC.run")
        heap, _, classes = self._ask_java("GC.heap_info").partition("Metaspace")
        in_use = sum(map(int, re.findall(r"generation .* used (\d+)K", heap)))
        self.live.append((in_use // 1024, int(re.search(r"used (\d+)K", classes)[1]) // 1024))

    def _ask_java(self, question: str) -> str:
        command = ["jcmd", str(self.command.process.pid), question]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def micro_batches(self) -> list[tuple[float, float]]:
        """Return when each micro-batch ended, in seconds after the start, and how many seconds it took."""
        lines = self.command.log.read_text().splitlines()
        matches = (re.match(r"\[ *([\d.]+) s\] micro-batch.* in ([\d.]+) s$", line) for line in lines)
        return [(float(match[1]), float(match[2])) for match in matches if match]


def by_part(pairs, seconds):
    """Return the median of the values in each sixth of the test's time.

    Args:
        pairs: Seconds after the start, and the value at that time.
        seconds: The length of the whole time.
    """
    parts = defaultdict(list)
    for at, value in pairs:
        parts[min(PARTS - 1, int(PARTS * at / seconds))].append(value)
    return [round(statistics.median(parts[part]), 2) if parts[part] else None for part in range(PARTS)]


def delivered(inbox):
    """Return the distinct events of each user in the delivered files. Each event is a tuple of its fields."""
    by_user = defaultdict(set)
    for file in sorted(inbox.glob("*.csv")):
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                by_user[int(row["user_id"])].add(tuple(row.values()))
    return by_user


def test_with_all_jobs_at_once_no_event_is_lost_or_counted_twice(spark, tmp_path):
    inbox, lake = tmp_path / "inbox", tmp_path / "lake"
    # Replay the events of a second store, so that most events are new to the lake. The files have no broken lines.
    feed = StoreSettings(events=30_000 + int(RATE * 60 * MINUTES), seed=6, days=35, broken_share=0.0)
    write_store(StoreSettings(events=20_000, seed=5, days=35, broken_share=0.0), inbox, "csv")
    write_store(feed, tmp_path / "feed" / "events", "csv")
    users = sorted(delivered(tmp_path / "feed" / "events"))
    common = ["--lake", lake, "--set", "maintenance.min_files=4"]
    commands: list[Command] = []
    forgotten: list[int] = []
    took = defaultdict(list)
    stopped = threading.Event()

    def start(*arguments, **options):
        commands.append(Command(*arguments, cwd=tmp_path, **options, SPARK_SUBMIT_OPTIONS=SMALL))
        return commands[-1]

    def done(*arguments, code=0):
        began = time.monotonic()
        command = start(*arguments)
        assert command.process.wait(1200) == code, command.log.read_text()
        took[arguments[0]].append(time.monotonic() - began)
        return command.log.read_text()

    def is_over():
        return stopped.is_set() or time.monotonic() > end

    def read():
        """Run the jobs that only read the tables that the streams write.

        Each job must see one consistent version of each table.
        """
        for number in itertools.count():
            if is_over():
                return
            for job in ("trends", "recommend", "status"):
                done(job, *common)
            text = done("sql", QUERY, *common)
            assert re.search(r"^\|0 *\|$", text, re.MULTILINE), text
            if number % 2 == 0:
                done("verify", *common)
            time.sleep(PAUSE)

    def maintain_and_forget():
        """Run the jobs that change the tables to which the streams write."""
        dice = random.Random(1)
        while not is_over():
            done("maintain", *common)
            forgotten.append(dice.choice(users))
            done("forget", "--user", forgotten[-1], "--refuse", "--vacuum", *common)
            time.sleep(dice.uniform(0, 2 * PAUSE))

    with ended_at_last(commands):
        done("run", inbox, *common)
        ingesting = ["ingest", inbox, "--trigger", "2 seconds", *common]
        counting = ["similarity", "--trigger", "2 seconds", "--set", "similarity.refresh_interval=1 minute", *common]
        streams = {arguments[0]: Watched(start(*arguments)) for arguments in (ingesting, counting)}
        playing_into = [tmp_path / "feed" / "events", "--to", inbox, "--rate", RATE, "--slice", 2]
        shares = ["--repeats", 0.05, "--disorder", 0.05, "--lateness", 0.02]
        playing = start("replay", *playing_into, *shares, **DISTURBED)
        time.sleep(30)
        for arguments in (ingesting, counting):
            text = done(*arguments, code=JobRunningError.exit_code)
            assert re.search(rf"{arguments[0]} is already running on this lake \(process \d+", text), text
        began = time.monotonic()
        end = began + 60 * MINUTES
        with ThreadPoolExecutor(2) as at_once:
            work = [at_once.submit(read), at_once.submit(maintain_and_forget)]
            try:
                while not all(job.done() for job in work) and not any(job.done() and job.exception() for job in work):
                    for name, stream in streams.items():
                        log = stream.command.log
                        assert stream.command.process.poll() is None, f"{name}: {log.read_text()[-3000:]}"
                        stream.sample_memory()
                        if time.monotonic() - began > (len(stream.live) + 1) * 60 * MINUTES / PARTS:
                            stream.sample_live_heap()
                    time.sleep(5)
            finally:
                # If one thread of jobs has failed, end the other thread early.
                stopped.set()
            for job in work:
                job.result()
        seconds = time.monotonic() - began
        playing.end(signal.SIGKILL)
        for stream in streams.values():
            assert stream.command.end(signal.SIGINT) == 130, stream.command.log.read_text()[-3000:]
        done("run", inbox, *common)
        text = done("verify", *common)
        print(text)

    for name, each in took.items():
        print(f"{name}: {len(each)} times, median {statistics.median(each):.1f} s, slowest {max(each):.1f} s")
    for name, stream in streams.items():
        batches = stream.micro_batches()
        print(f"{name}: {len(batches)} micro-batches, median seconds by part of the time {by_part(batches, seconds)}")
        megabytes = by_part([(at, held / 2**20) for at, held in stream.memory], seconds)
        print(f"{name}: median MB by part of the time {megabytes}")
        print(f"{name}: MB of heap in use and MB of classes, after each part of the time {stream.live}")
    expected = {user: len(events) for user, events in delivered(inbox).items() if user not in forgotten}
    counts = Lake.open(spark, str(lake))[EVENTS].read().groupBy("user_id").count().collect()
    assert {row.user_id: row["count"] for row in counts} == expected
