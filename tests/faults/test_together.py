"""Promise 4: everything at once. While events keep arriving and both streams stay up, lists and trends are made anew,
tables are queried and verified, files are put together and deleted, and users are forgotten: no job fails, and at the
end nothing is lost and nothing is counted twice.

    MINUTES=60 ./spark-submit.sh test tests/faults/test_together.py -m long -s

MINUTES is how long events arrive. Every process is the real command. Prints what each job took, and for each sixth of
the time the memory and the micro-batches of the streams.
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

pytestmark = [pytest.mark.process, pytest.mark.long]

MINUTES = float(os.environ.get("MINUTES", "4"))
RATE = 20
PAUSE = MINUTES / 2
"""Seconds between two rounds of jobs: those of an hour leave the machine some room."""
PARTS = 6
SMALL = (
    "--driver-memory 1g --conf spark.sql.shuffle.partitions=2 --conf spark.databricks.delta.snapshotPartitions=1 "
    "--conf spark.driver.defaultJavaOptions=-XX:+UseSerialGC"
)
QUERY = "select (select count(*) from events) - (select count(distinct event_id) from events) as counted_twice"
"""Two looks at a table, which have to see the same version of it."""


@dataclass
class Watched:
    """A stream that stays up: its memory by the second it was looked at, its micro-batches by the second they ended."""

    command: Command
    started: float = field(default_factory=time.monotonic)
    memory: list[tuple[float, int]] = field(default_factory=list)
    live: list[tuple[int, int]] = field(default_factory=list)
    """After each part of the time: the MB of its heap that are in use, and of its classes."""

    def look(self) -> None:
        status = f"/proc/{self.command.process.pid}/status"
        with open(status) as text:
            kilobytes = int(re.search(r"VmRSS:\s+(\d+)", text.read())[1])
        self.memory.append((time.monotonic() - self.started, kilobytes * 1024))

    def look_into(self) -> None:
        """What Java takes from the machine it keeps: whether more and more is in use shows after a collection only."""
        self._ask_java("GC.run")
        heap, _, classes = self._ask_java("GC.heap_info").partition("Metaspace")
        in_use = sum(map(int, re.findall(r"generation .* used (\d+)K", heap)))
        self.live.append((in_use // 1024, int(re.search(r"used (\d+)K", classes)[1]) // 1024))

    def _ask_java(self, question: str) -> str:
        asked = ["jcmd", str(self.command.process.pid), question]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout

    def micro_batches(self) -> list[tuple[float, float]]:
        """When each ended, in seconds after the start, and how long it took."""
        lines = self.command.log.read_text().splitlines()
        found = (re.match(r"\[ *([\d.]+) s\] micro-batch.* in ([\d.]+) s$", line) for line in lines)
        return [(float(one[1]), float(one[2])) for one in found if one]


def by_part(pairs, seconds):
    """The median of the second of each pair, for each part of the time that the first lies in."""
    parts = defaultdict(list)
    for at, value in pairs:
        parts[min(PARTS - 1, int(PARTS * at / seconds))].append(value)
    return [round(statistics.median(parts[part]), 2) if parts[part] else None for part in range(PARTS)]


def delivered(inbox):
    """What of the files is an event: a set of its fields, by user."""
    by_user = defaultdict(set)
    for file in sorted(inbox.glob("*.csv")):
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                by_user[int(row["user_id"])].add(tuple(row.values()))
    return by_user


def test_all_jobs_at_once_and_nothing_is_lost_or_counted_twice(spark, tmp_path):
    inbox, lake = tmp_path / "inbox", tmp_path / "lake"
    # Another store's events come to a store that is there: much of them is new to it. No line is broken.
    feed = StoreSettings(events=30_000 + int(RATE * 60 * MINUTES), seed=6, days=35, broken_share=0.0)
    write_store(StoreSettings(events=20_000, seed=5, days=35, broken_share=0.0), inbox, "csv")
    write_store(feed, tmp_path / "feed" / "events", "csv")
    users = sorted(delivered(tmp_path / "feed" / "events"))
    common = ["--lake", lake, "--set", "maintenance.min_files=4"]
    commands: list[Command] = []
    forgotten: list[int] = []
    took = defaultdict(list)
    stopped = threading.Event()

    def start(*arguments):
        commands.append(Command(*arguments, cwd=tmp_path, SPARK_SUBMIT_OPTIONS=SMALL))
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
        """Who reads: each one consistent version of each table, whatever goes on."""
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

    def keep():
        """Who changes tables behind the streams."""
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
        shares = ["--repeats", 0.05, "--disorder", 0.05, "--lateness", 0.02]
        playing = start("replay", tmp_path / "feed" / "events", "--to", inbox, "--rate", RATE, "--slice", 2, *shares)
        time.sleep(30)
        for arguments in (ingesting, counting):
            text = done(*arguments, code=JobRunningError.exit_code)
            assert re.search(rf"{arguments[0]} is already running on this lake \(process \d+", text), text
        began = time.monotonic()
        end = began + 60 * MINUTES
        with ThreadPoolExecutor(2) as at_once:
            work = [at_once.submit(read), at_once.submit(keep)]
            try:
                while not all(one.done() for one in work) and not any(one.done() and one.exception() for one in work):
                    for name, stream in streams.items():
                        log = stream.command.log
                        assert stream.command.process.poll() is None, f"{name}: {log.read_text()[-3000:]}"
                        stream.look()
                        if time.monotonic() - began > (len(stream.live) + 1) * 60 * MINUTES / PARTS:
                            stream.look_into()
                    time.sleep(5)
            finally:
                # Where one has failed, the other is not waited for until the end.
                stopped.set()
            for one in work:
                one.result()
        seconds = time.monotonic() - began
        playing.end(signal.SIGKILL)
        for stream in streams.values():
            assert stream.command.end(signal.SIGINT) == 130, stream.command.log.read_text()[-3000:]
        done("run", inbox, *common)
        text = done("verify", *common)
        print(text)

    for name, each in took.items():
        print(f"{name}: {len(each)} times, median {statistics.median(each):.1f} s, most {max(each):.1f} s")
    for name, stream in streams.items():
        batches = stream.micro_batches()
        print(f"{name}: {len(batches)} micro-batches, median seconds by part {by_part(batches, seconds)}")
        print(f"{name}: median MB by part {by_part([(at, held / 2**20) for at, held in stream.memory], seconds)}")
        print(f"{name}: MB of the heap in use and of classes after each part {stream.live}")
    expected = {user: len(events) for user, events in delivered(inbox).items() if user not in forgotten}
    found = Lake.open(spark, str(lake)).read(EVENTS).groupBy("user_id").count().collect()
    assert {row.user_id: row["count"] for row in found} == expected
