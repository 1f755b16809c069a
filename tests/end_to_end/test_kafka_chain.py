"""Tests that every Kafka event reaches the lake exactly once, although jobs and the broker are killed."""

import re
import signal
import time

import pytest
from pyspark.sql import functions as F

from lambda_spark.ingestion.ingest import ingest_topic
from lambda_spark.operations.verify import verify
from lambda_spark.settings import IngestSettings, KafkaSettings, SimilaritySettings
from lambda_spark.speed.update import update_similarity
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, INGESTION_LOG, REJECTED_EVENTS
from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.commands import Command, ended_at_last
from tests.conftest import OCTOBER
from tests.kafka_broker import Broker
from tests.replay.disturbed import DISTURBED

WITHIN = 400
"""Largest number of seconds for one action of the test. The limit is generous, because the machine may be busy."""

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
    """Return the number of a table's commits, counted by the names of the commit files."""
    return len(list((lake / table / "_delta_log").glob("0*.json")))


def feed_of(folder):
    """Return event files, the number of distinct events in them, and the number of broken lines in them.

    The files hold events of a real store if these are available, else events of a made-up store.
    """
    if OCTOBER.exists():
        return OCTOBER, 17_429, 1
    store = write_store(StoreSettings(events=2_500, seed=5, days=21, broken_share=0.005), folder / "store", "csv")
    return folder / "store", store.events, store.broken


def test_every_event_replayed_into_kafka_is_in_the_lake_once_although_jobs_and_broker_are_killed(spark, tmp_path):
    broker = Broker(tmp_path / "broker")
    broker.start()
    broker.create_topic("user_activities", partitions=2)
    where = ["--bootstrap-servers", broker.address, "--topic", "user_activities"]
    source, events, broken = feed_of(tmp_path)
    lake = tmp_path / "lake"
    ingest = ["ingest", "--source", "kafka", *where, "--lake", lake, "--trigger", "1 second"]
    # Force many micro-batches, even when a slow machine begins to read only after all messages have been sent.
    ingest += ["--set", f"kafka.max_messages_per_batch={max(400, events // 10)}"]
    similarity = ["similarity", "--lake", lake, "--trigger", "1 second"]
    commands = []

    def start(*arguments, **options):
        commands.append(Command(*arguments, cwd=tmp_path, **options, **SMALL))
        return commands[-1]

    def kill_after_an_append(arguments, table, *others):
        """Kill a job when it has written its micro-batch to one table, but not to other tables or the checkpoint."""
        running = start(*arguments)
        before = versions(lake, table)
        wait_until(lambda: versions(lake, table) > max(before, 3), running, *others)
        running.end(signal.SIGKILL)

    with ended_at_last(commands):
        try:
            feed = ["replay", source, *where, "--rate", 20, "--slice", "0.5"]
            shares = ["--repeats", 0.1, "--disorder", 0.1, "--lateness", 0.05]
            playing = start(*feed, *shares, **DISTURBED)
            kill_after_an_append(ingest, "events")
            reading = start(*ingest)
            kill_after_an_append(similarity, "co_interactions", reading)
            counting = start(*similarity)
            broker.kill()
            time.sleep(1)
            broker.start()
            known = versions(lake, "events")
            wait_until(lambda: versions(lake, "events") > known + 1, reading, counting)
            playing.end(signal.SIGKILL)
            # Send the remaining events at a high rate.
            feed[feed.index(20)] = 100_000
            playing = start(*feed, *shares, **DISTURBED)
            assert playing.process.wait(WITHIN) == 0, playing.log.read_text()
            assert reading.end(signal.SIGINT) == 130, reading.log.read_text()
            assert counting.end(signal.SIGINT) == 130, counting.log.read_text()
            opened = Lake.open(spark, str(lake))
            topic = KafkaSettings(bootstrap_servers=broker.address, topic="user_activities")
            ingest_topic(opened, topic, IngestSettings())
        finally:
            broker.kill()

    counts = (
        opened[EVENTS].read().agg(F.count("*").alias("rows"), F.count_distinct("event_id").alias("ids")).collect()[0]
    )
    assert (counts.rows, counts.ids) == (events, events)
    assert opened[REJECTED_EVENTS].read().count() == broken
    accounts = opened[INGESTION_LOG].read().collect()
    for partition in range(2):
        # The offset ranges in the log neither overlap nor leave gaps, so each message is counted in exactly one row.
        ranges = sorted(
            tuple(map(int, re.fullmatch(rf"kafka:user_activities/{partition}/(\d+)-(\d+)", row.source).groups()))
            for row in accounts
            if row.source.startswith(f"kafka:user_activities/{partition}/")
        )
        assert ranges[0][0] == 0
        assert [first for first, _ in ranges[1:]] == [last + 1 for _, last in ranges[:-1]]
    assert sum(row.events for row in accounts) == events
    assert all(row.lines == row.events + row.repeats + row.rejected for row in accounts)

    update_similarity(opened, SimilaritySettings())
    findings = {finding.table: finding for finding in verify(opened)}
    assert [table for table, finding in findings.items() if finding.differs] == []
    assert {"products", "baskets", "co_interactions", "similar_items"} <= set(findings)
