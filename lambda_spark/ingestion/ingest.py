"""Files or a Kafka topic into `events`, `rejected_events` and `ingested_files`, each event once; and `products` of it.

The source says what is new and Spark remembers it; what becomes of a line is the same wherever it came from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.errors import CheckpointError
from lambda_spark.ingestion.file_source import FileSource
from lambda_spark.ingestion.kafka_source import KafkaSource
from lambda_spark.ingestion.micro_batch import INGEST_TABLES, Account, MicroBatch
from lambda_spark.ingestion.products import newest_products, product_attributes
from lambda_spark.ingestion.refused_users import FORGETTING
from lambda_spark.ingestion.source import Source
from lambda_spark.settings import AVAILABLE_NOW, IngestSettings, KafkaSettings
from lambda_spark.storage.checkpoints import APPLICATION, Checkpoint, new_application, open_checkpoint
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.stream import run_stream
from lambda_spark.storage.tables import EVENTS, INGESTED_FILES, PRODUCTS, REJECTED_EVENTS

Progress = Callable[[str], None]

# Unlike counts of pairs, events know their repeats: all may safely be read once more.
_READ_AGAIN = "all is read again, and what was read before is dropped as a repeat"
_COME_BACK = "users who were forgotten without --refuse come back with what is read again: forget them once more"


def ingest(
    lake: Lake, sources: Iterable[str], settings: IngestSettings, *, trigger: str = AVAILABLE_NOW, progress: Progress
) -> Account:
    """Read what is new in the sources (folders or files) and return the account of it.

    Raises UsageError for a source that does not exist.
    """
    files = FileSource(lake, list(sources), settings)
    _bring_back(lake, progress)
    create_tables(lake)
    at_start = files.present()
    account = _take_in(lake, files, settings, trigger, progress)
    with lake.locks.reader():
        return replace(account, rewritten=files.not_read_again(at_start))


def ingest_topic(
    lake: Lake,
    kafka: KafkaSettings,
    settings: IngestSettings,
    *,
    from_start: bool = False,
    trigger: str = AVAILABLE_NOW,
    progress: Progress,
) -> Account:
    """Read what is new in a Kafka topic and return the account of it; with `from_start`, from its earliest offset.

    Raises UsageError for a topic that is not there, KafkaError where no broker answers or messages are gone that had
    not been read.
    """
    topic = KafkaSource(lake.spark, kafka)
    topic_id = topic.look_up()
    _bring_back(lake, progress)
    create_tables(lake)
    recorded_id = lake.properties(EVENTS).get(topic.id_key)
    if from_start or recorded_id is None:
        lake.set_properties(EVENTS, {topic.application_key: new_application(), topic.id_key: topic_id})
        progress(f"reading topic {kafka.topic} from its earliest offset")
    elif recorded_id != topic_id:
        raise topic.was_recreated()
    with topic.errors_in_one_line():
        return _take_in(lake, topic, settings, trigger, progress)


def create_tables(lake: Lake, properties: Mapping[str, str] | None = None) -> None:
    """The tables that ingestion writes, where they are missing; the properties go to `events`."""
    lake.create(EVENTS, properties={APPLICATION: new_application(), **(properties or {})})
    lake.create(REJECTED_EVENTS, INGESTED_FILES, PRODUCTS)


def _bring_back(lake: Lake, progress: Progress) -> None:
    """See to it that tables which are gone, although events came in, get their rows again."""
    if not lake.exists(EVENTS) or lake.last_commit(EVENTS, job="ingest") is None:
        return
    if not lake.exists(PRODUCTS):
        progress("products is missing; making it again from events")
        renew_products(lake)
    missing = [table.name for table in (REJECTED_EVENTS, INGESTED_FILES) if not lake.exists(table)]
    if missing:
        keys = [key for key in lake.properties(EVENTS) if key.partition(".")[0] == APPLICATION]
        each = " (files and topics, each by the next job that reads it)" if len(keys) > 1 else ""
        _read_again(lake, keys, f"{', '.join(missing)} is missing; {_READ_AGAIN}{each}", progress)


def _read_again(lake: Lake, keys: Sequence[str], why: str, progress: Progress) -> None:
    """Have streams, named by the properties that hold their application ids, begin anew."""
    progress(why)
    if come_back := who_comes_back(lake):
        progress(come_back)
    lake.set_properties(EVENTS, {key: new_application() for key in keys})


def who_comes_back(lake: Lake) -> str:
    """What to know before sources are read again, where users were forgotten; else empty."""
    return _COME_BACK if FORGETTING in lake.properties(EVENTS) else ""


def _take_in(lake: Lake, source: Source, settings: IngestSettings, trigger: str, progress: Progress) -> Account:
    checkpoint = _checkpoint(lake, source, progress)
    total = Account()

    def process(batch: DataFrame, batch_id: int) -> None:
        nonlocal total
        started = time.monotonic()
        # Held as a whole: what a micro-batch found in the tables must still be so when it writes.
        with lake.locks.tables(*(table.name for table in INGEST_TABLES)):
            delivery = source.delivery(batch, checkpoint, batch_id)
            account = MicroBatch(lake, checkpoint, settings, batch_id, delivery).write()
        progress(
            f"micro-batch {batch_id}: {account.parts} {source.unit}, {account.lines:,} lines = "
            f"{account.events:,} events + {account.repeats:,} repeats + {account.rejected:,} rejected "
            f"in {time.monotonic() - started:.1f} s"
        )
        total = total + account

    renewed_at = time.monotonic()

    def idle() -> None:
        nonlocal renewed_at
        if trigger != AVAILABLE_NOW and time.monotonic() - renewed_at > settings.refresh_interval.total_seconds():
            renew_products(lake)
            renewed_at = time.monotonic()

    run_stream(source.stream(), checkpoint, process, trigger=trigger, idle=idle)
    renew_products(lake)
    return total


def renew_products(lake: Lake) -> None:
    """Bring `products` up to date with `events`, from what came since or, where anything was taken out, from all."""
    lake.create(PRODUCTS)
    with lake.locks.reader(), lake.locks.table(PRODUCTS.name):
        version = lake.version(EVENTS)
        done = lake.last_commit(PRODUCTS)
        seen = None if done is None else done.note.get("events_version")
        note = {"job": "ingest", "events_version": version}
        if seen is None or seen > version or not lake.has_log_since(EVENTS, seen):
            lake.overwrite(PRODUCTS, product_attributes(lake.read(EVENTS, version)), note=note)
            return
        if lake.newest_alike(EVENTS, seen) == version:
            return
        changes = lake.changes(EVENTS, seen, version)
        if changes.where(F.col("_change_type") != "insert").isEmpty():
            products = newest_products(lake.read(PRODUCTS), product_attributes(changes))
        else:
            products = product_attributes(lake.read(EVENTS, version))
        lake.overwrite(PRODUCTS, products, note=note)


def _checkpoint(lake: Lake, source: Source, progress: Progress) -> Checkpoint:
    key = source.application_key
    try:
        return open_checkpoint(lake, source.name, EVENTS, way_out=_READ_AGAIN, key=key, parts=source.checkpoint_parts)
    except CheckpointError as error:
        _read_again(lake, [key], str(error), progress)
        return open_checkpoint(lake, source.name, EVENTS, way_out="", key=key)
