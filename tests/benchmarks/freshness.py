"""A benchmark of the time from an event's arrival in Kafka until `recommend --user` reflects the event.

    ./spark-submit.sh test -m long -s tests/benchmarks/freshness.py

A store's events are replayed into a real broker while `ingest` and `similarity` run as processes. Every few seconds a
new user views one product. The clock stops when that user's list names this product as a reason. The test computes the
list in an open Spark session, as `recommend --user` does. The test prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from datetime import datetime, timedelta

import pytest

from lambda_spark.serving.inputs import pin_views
from lambda_spark.serving.one_user import for_user
from lambda_spark.settings import RecommendationSettings
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, SIMILAR_ITEMS
from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.commands import Command, ended_at_last
from tests.kafka_broker import Broker

pytestmark = [pytest.mark.process, pytest.mark.long]

PROBES = int(os.environ.get("PROBES", "20"))
TOPIC = "user_activities"
NEWCOMER = 900_000_000


@pytest.fixture
def broker(tmp_path):
    started = Broker(tmp_path / "broker")
    started.start()
    yield started
    started.kill()


def test_freshness(spark, broker, tmp_path):
    broker.create_topic(TOPIC, partitions=2)
    where = ["--bootstrap-servers", broker.address, "--topic", TOPIC]
    # Ingest the first store before the measurement. Replay the second store during it, at the pace of a small store.
    for name, seed in (("store", 5), ("feed", 6)):
        write_store(StoreSettings(events=50_000, seed=seed, days=35), tmp_path / name / "events", "csv")
    lake = tmp_path / "lake"
    commands = []

    def start(*arguments):
        commands.append(Command(*arguments, cwd=tmp_path, SPARK_SUBMIT_OPTIONS="--driver-memory 2g"))
        return commands[-1]

    with ended_at_last(commands):
        assert start("run", tmp_path / "store" / "events", "--lake", lake).process.wait(900) == 0
        ingest = start("ingest", "--source", "kafka", *where, "--lake", lake, "--trigger", "1 second")
        start("similarity", "--lake", lake, "--trigger", "2 seconds", "--set", "similarity.refresh_interval=1 minute")
        start("replay", tmp_path / "feed" / "events", *where, "--rate", 20)
        opened = Lake.open(spark, str(lake))
        popular = opened[SIMILAR_ITEMS].read().where("rank = 20").select("product_id").distinct().limit(200).collect()
        dice = random.Random(1)
        waits, lookups = [], []
        for number in range(PROBES + 2):
            time.sleep(dice.uniform(2, 6))
            user, product = NEWCOMER + number, dice.choice(popular).product_id
            event = {
                # Date the event just after the store's last day. With today's date, all the store's counts would decay.
                "event_time": f"{datetime(2019, 11, 4) + timedelta(minutes=number):%Y-%m-%d %H:%M:%S} UTC",
                "event_type": "view",
                "product_id": product,
                "user_id": user,
                "user_session": f"s{number}",
            }
            began = time.monotonic()
            broker.send(TOPIC, [json.dumps(event).encode()])
            while True:
                seen = opened[EVENTS].version()
                lookup_began = time.monotonic()
                rows = for_user(pin_views(opened), RecommendationSettings(), user)
                lookups.append(time.monotonic() - lookup_began)
                if any(row.because_of == product for row in rows):
                    break
                assert time.monotonic() - began < 300, ingest.log.read_text()[-2000:]
                while opened[EVENTS].version() == seen:
                    time.sleep(0.1)
            waits.append(time.monotonic() - began)
            print(f"{waits[-1]:.1f} s", flush=True)
        # Leave out the first two views, because their times include the start of both jobs.
        figures = {"probes": len(waits[2:]), "median_s": statistics.median(waits[2:]), "worst_s": max(waits[2:])}
        print(json.dumps({**figures, "median_recommend_s": statistics.median(lookups)}))
