"""Tests of ingesting a Kafka topic from a real broker into a real lake.

Messages are counted, rejected and deduplicated in the same way as lines of files.
"""

import json
import time
import zlib

import pytest
from pyspark.sql import functions as F

from lambda_spark.errors import KafkaError, UsageError
from lambda_spark.ingestion.ingest import ingest, ingest_topic
from lambda_spark.settings import IngestSettings, KafkaSettings
from lambda_spark.source_description import SourceDescription
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, INGESTION_LOG, PRODUCTS, REJECTED_EVENTS
from tests.deliveries import HEADER
from tests.kafka_broker import Broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("kafka") / "broker")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="module")
def lake(session, tmp_path_factory):
    """One lake for all tests in this file. Each test has its own topic and products, so no test disturbs another."""
    return Lake.open(session, str(tmp_path_factory.mktemp("kafka") / "lake"), create=True)


@pytest.fixture
def topic(broker, request):
    """Create a topic with two partitions for the test, and return the settings for reading this topic."""
    name = request.node.name[:200]
    broker.create_topic(name, partitions=2)
    return KafkaSettings(bootstrap_servers=broker.address, topic=name)


@pytest.fixture
def events(topic):
    """Three events of a product that no other test uses."""
    product = zlib.crc32(topic.topic.encode()) + 1
    one = {"event_time": "2019-10-01 00:00:00 UTC", "event_type": "view", "product_id": product, "user_id": 1}
    return one, {**one, "event_type": "cart", "brand": "caf\u00e9"}, {**one, "event_type": "purchase", "price": "5.00"}


def message(event):
    return json.dumps(event).encode()


def found(lake, table, topic):
    return lake[table].read().where(F.startswith("source", F.lit(f"kafka:{topic.topic}/"))).collect()


def take(lake, topic, **options):
    return ingest_topic(lake, topic, IngestSettings(), **options)


def counts(account):
    return account.lines, account.events, account.repeats, account.rejected


def written(lake):
    return lake.versions(EVENTS, REJECTED_EVENTS, PRODUCTS, INGESTION_LOG)


def test_every_message_is_an_event_a_repeat_or_a_rejection(lake, broker, topic, events):
    one, two, _ = events
    latin = '{"event_time": "caf\u00e9"}'.encode("latin-1")
    good = [message(event) for event in (one, two, one)]
    bad = [b"{not json", latin, None, b'{"event_type": "view"}', b"[" + message(one) + b"]", b"{not json"]
    broker.send(topic.topic, good, partition=0)
    broker.send(topic.topic, bad, partition=1)
    assert counts(take(lake, topic)) == (9, 2, 3, 4)
    sources = {(row.event_type, row.brand): row.source for row in found(lake, EVENTS, topic)}
    assert sources[("cart", "caf\u00e9")] == f"kafka:{topic.topic}/0/1"
    rejected = {row.source.rsplit("/", 1)[-1]: row for row in found(lake, REJECTED_EVENTS, topic)}
    assert {offset: row.reasons for offset, row in rejected.items() if offset not in ("0", "5")} == {
        "1": ["not valid UTF-8"],
        "2": ["empty line"],
        "3": ["event_time is missing", "product_id is missing", "user_id is missing, and there is no session"],
    }
    assert bytes(rejected["1"].raw_bytes) == latin
    parts = {row.source: row for row in found(lake, INGESTION_LOG, topic)}
    assert set(parts) == {f"kafka:{topic.topic}/0/0-2", f"kafka:{topic.topic}/1/0-5"}
    assert all(row.lines == row.events + row.repeats + row.rejected for row in parts.values())
    assert parts[f"kafka:{topic.topic}/0/0-2"].bytes == sum(map(len, good))
    assert abs(parts[f"kafka:{topic.topic}/0/0-2"].modified_at.timestamp() - time.time()) < 600


def test_messages_are_read_as_their_source_description_says(lake, broker, topic, events):
    product = events[0]["product_id"]
    items = [{"sku": product, "cost": "5,00"}, {"sku": product + 1, "cost": "x"}]
    order = {"at": 1569888000000, "who": 1, "items": items}
    visit = {**order, "items": [], "kind": "visit"}
    # Confluent's serializers put a byte 0 and the four bytes of a schema's number before the JSON.
    broker.send(topic.topic, [b"\0\0\0\0\7" + message(order), message(visit)], partition=0)
    description = SourceDescription(
        time_unit="milliseconds",
        decimal_comma=True,
        explode="items",
        fields={
            "event_time": "at",
            "event_type": "case when kind = 'visit' then 'ignore' else 'purchase' end",
            "product_id": "items.sku",
            "user_id": "who",
            "price": "items.cost",
        },
    )
    account = take(lake, topic, description=description)
    assert (account.lines, account.events, account.ignored, account.nulled) == (3, 2, 1, 1)
    stored = {(row.product_id, str(row.price), str(row.nulled_fields)) for row in found(lake, EVENTS, topic)}
    assert stored == {(product, "5.00", "None"), (product + 1, "None", "{'price': 'x'}")}
    [part] = found(lake, INGESTION_LOG, topic)
    assert part.bytes == 5 + len(message(order)) + len(message(visit))


def test_no_message_is_read_twice_and_a_replayed_micro_batch_changes_nothing(lake, broker, topic, events):
    one, two, _ = events
    broker.send(topic.topic, [message(one), b"broken here"])
    assert counts(take(lake, topic)) == (2, 1, 0, 1)
    versions = written(lake)
    assert counts(take(lake, topic)) == (0, 0, 0, 0)
    assert written(lake) == versions
    # Delete the checkpoint's folder `commits`, as if the job had been killed before recording the micro-batch.
    application = lake[EVENTS].properties()[f"application.kafka.{topic.topic}"]
    lake.files.delete(f"_checkpoints/ingest-kafka-{topic.topic}/{application}/commits")
    broker.send(topic.topic, [message(two)])
    take(lake, topic)
    assert len(found(lake, EVENTS, topic)) == 2
    assert len(found(lake, REJECTED_EVENTS, topic)) == 1
    assert sum(row.lines for row in found(lake, INGESTION_LOG, topic)) == 3


def test_files_and_a_topic_of_one_lake_keep_separate_records_of_their_progress(lake, broker, topic, events, tmp_path):
    def deliver(name, *events):
        lines = [f"{e['event_time']},{e['event_type']},{e['product_id']},,,{e.get('brand', '')},,1," for e in events]
        (tmp_path / f"{name}.csv").write_text("\n".join([HEADER, *lines, ""]))
        return ingest(lake, [str(tmp_path)], IngestSettings())

    one, two, three = events
    four = {**one, "event_type": "remove_from_cart"}
    # The micro-batches of the file stream and of the topic stream have the same numbers.
    assert counts(deliver("one", one)) == (1, 1, 0, 0)
    broker.send(topic.topic, [message(one), message(two)])
    assert counts(take(lake, topic)) == (2, 1, 1, 0)
    assert counts(deliver("two", two, four)) == (2, 1, 1, 0)
    broker.send(topic.topic, [message(three)])
    assert counts(take(lake, topic)) == (1, 1, 0, 0)


def test_unread_messages_that_kafka_deleted_and_a_recreated_topic_give_a_clear_error(lake, broker, topic, events):
    one, two, three = events
    broker.send(topic.topic, [message(one)], partition=0)
    take(lake, topic)
    broker.send(topic.topic, [message(two)] * 3, partition=0)
    broker.delete_messages(topic.topic, partition=0, before=3)
    with pytest.raises(KafkaError, match=r"^unread messages of topic .* are gone: .*--from-start") as gone:
        take(lake, topic)
    assert "\n" not in str(gone.value)
    assert counts(take(lake, topic, from_start=True)) == (1, 1, 0, 0)
    # Give the new topic as many messages as the old topic had. So the offsets do not reveal that the topic is new.
    broker.delete_topic(topic.topic)
    broker.create_topic(topic.topic, partitions=2)
    broker.send(topic.topic, [message(event) for event in (two, three, two, two)], partition=0)
    with pytest.raises(KafkaError, match=r"is not the one that this lake has read.*--from-start"):
        take(lake, topic)
    assert counts(take(lake, topic, from_start=True)) == (4, 1, 3, 0)


def test_a_missing_topic_setting_or_properties_file_gives_a_clear_error(lake, broker, tmp_path):
    with pytest.raises(UsageError, match=r"there is no topic 'nowhere' at 127\.0"):
        take(lake, KafkaSettings(bootstrap_servers=broker.address, topic="nowhere"))
    with pytest.raises(UsageError, match="needs --bootstrap-servers and --topic"):
        take(lake, KafkaSettings(topic="nowhere"))
    with pytest.raises(UsageError, match=r"none\.properties"):
        take(
            lake,
            KafkaSettings(
                bootstrap_servers=broker.address, topic="t", properties_file=str(tmp_path / "none.properties")
            ),
        )


def test_the_client_properties_reach_kafka_and_are_never_shown(lake, broker, topic, events, tmp_path):
    secret = "hunter2hunter2"
    file = tmp_path / "client.properties"
    jaas = f'org.apache.kafka.common.security.plain.PlainLoginModule required username="me" password="{secret}'
    file.write_text(f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={jaas}\n")
    secured = KafkaSettings(bootstrap_servers=topic.bootstrap_servers, topic=topic.topic, properties_file=str(file))
    with pytest.raises(KafkaError, match="cannot be asked about topic") as refused:
        take(lake, secured)
    assert "jaas" in str(refused.value).lower(), "the properties must reach the client"
    assert secret not in str(refused.value)
    assert refused.value.__cause__ is None
    file.write_text("security.protocol=PLAINTEXT\nclient.id=the-store\n")
    broker.send(topic.topic, [message(events[0])])
    assert counts(take(lake, secured)) == (1, 1, 0, 0)
