"""A live feed through a real broker while everything on the way is killed: every event is there once."""

import re
import signal
import time

import pytest
from pyspark.sql import functions as F

from lambda_spark.ingestion.ingest import ingest_topic
from lambda_spark.operations.verify import verify
from lambda_spark.settings import IngestSettings, KafkaSettings, SimilaritySettings
from lambda_spark.speed.update import update
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, INGESTED_FILES, REJECTED_EVENTS
from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.commands import Command, ended_at_last
from tests.conftest import OCTOBER
from tests.deliveries import quiet
from tests.kafka_broker import Broker

WITHIN = 400
"""Seconds for one step of the way: a machine that is busy with other things may need some."""

SMALL = {
    "SPARK_SUBMIT_OPTIONS": "--driver-memory 1g --conf spark.sql.shuffle.partitions=2 "
    "--conf spark.databricks.delta.snapshotPartitions=1",
    "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1",
}

pytestmark = [pytest.mark.process, pytest.mark.long]


def wait_until(condition, *commands):
    end = time.monotonic() + WITHIN
    while not condition():
        for command in commands:
            assert command.process.poll() is None, command.log.read_text()[-3000:]
        assert time.monotonic() < end, [command.log.read_text()[-1000:] for command in commands]
        time.sleep(0.01)


def versions(lake, table):
    """How many commits a table has, without a look into them."""
    return len(list((lake / table / "_delta_log").glob("0*.json")))


def feed_of(folder):
    """Event files, and how many distinct events and broken lines are in them: real ones where they are at hand."""
    if OCTOBER.exists():
        return OCTOBER, 17_429, 1
    store = write_store(StoreSettings(events=2_500, seed=5, days=21, broken_share=0.005), folder / "store", "csv")
    return folder / "store", store.events, store.broken


def test_what_is_played_into_kafka_is_in_the_lake_once_though_everything_is_killed(spark, tmp_path):
    broker = Broker(tmp_path / "broker")
    broker.start()
    broker.create_topic("user_activities", partitions=2)
    where = ["--bootstrap-servers", broker.address, "--topic", "user_activities"]
    source, events, broken = feed_of(tmp_path)
    lake = tmp_path / "lake"
    ingest = ["ingest", "--source", "kafka", *where, "--lake", lake, "--trigger", "1 second"]
    # Many micro-batches, also where the machine is slow and all has been played long since.
    ingest += ["--set", f"kafka.max_messages_per_batch={max(400, events // 10)}"]
    similarity = ["similarity", "--lake", lake, "--trigger", "1 second"]
    commands = []

    def start(*arguments):
        commands.append(Command(*arguments, cwd=tmp_path, **SMALL))
        return commands[-1]

    def killed_after_its_first_append(arguments, table, *others):
        """Killed with a micro-batch half written: in one table, not in the others, and not in the checkpoint."""
        running = start(*arguments)
        before = versions(lake, table)
        wait_until(lambda: versions(lake, table) > max(before, 3), running, *others)
        running.end(signal.SIGKILL)

    with ended_at_last(commands):
        try:
            feed = ["replay", source, *where, "--rate", 20, "--slice", "0.5"]
            shares = ["--repeats", 0.1, "--disorder", 0.1, "--lateness", 0.05]
            playing = start(*feed, *shares)
            killed_after_its_first_append(ingest, "events")
            reading = start(*ingest)
            killed_after_its_first_append(similarity, "co_interactions", reading)
            counting = start(*similarity)
            broker.kill()
            time.sleep(1)
            broker.start()
            known = versions(lake, "events")
            wait_until(lambda: versions(lake, "events") > known + 1, reading, counting)
            playing.end(signal.SIGKILL)
            # What is left is played at once.
            feed[feed.index(20)] = 100_000
            playing = start(*feed, *shares)
            assert playing.process.wait(WITHIN) == 0, playing.log.read_text()
            assert reading.end(signal.SIGINT) == 130, reading.log.read_text()
            assert counting.end(signal.SIGINT) == 130, counting.log.read_text()
            opened = Lake.open(spark, str(lake))
            topic = KafkaSettings(bootstrap_servers=broker.address, topic="user_activities")
            ingest_topic(opened, topic, IngestSettings(), progress=quiet)
        finally:
            broker.kill()

    found = opened.read(EVENTS).agg(F.count("*").alias("rows"), F.count_distinct("event_id").alias("ids")).collect()[0]
    assert (found.rows, found.ids) == (events, events)
    assert opened.read(REJECTED_EVENTS).count() == broken
    accounts = opened.read(INGESTED_FILES).collect()
    for partition in range(2):
        # Each message is accounted for in one row: the ranges follow one another.
        ranges = sorted(
            tuple(map(int, re.fullmatch(rf"kafka:user_activities/{partition}/(\d+)-(\d+)", row.source).groups()))
            for row in accounts
            if row.source.startswith(f"kafka:user_activities/{partition}/")
        )
        assert ranges[0][0] == 0
        assert [first for first, _ in ranges[1:]] == [last + 1 for _, last in ranges[:-1]]
    assert sum(row.events for row in accounts) == events
    assert all(row.lines == row.events + row.repeats + row.rejected for row in accounts)

    update(opened, SimilaritySettings(), progress=quiet)
    findings = {finding.table: finding for finding in verify(opened, quiet)}
    assert [table for table, finding in findings.items() if finding.differs] == []
    assert {"products", "baskets", "co_interactions", "similar_items"} <= set(findings)
