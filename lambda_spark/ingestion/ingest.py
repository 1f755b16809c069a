"""The ingestion job: writes `events`, `rejected_events`, `ingestion_log` and `products` from files or a Kafka topic.

Each event is stored once. Spark finds new files or messages, and its checkpoint records which of them were read.
Lines of files and messages of a topic are treated in the same way.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.errors import CheckpointError, UsageError
from lambda_spark.ids import IDS, WORDS, Ids
from lambda_spark.ingestion.delta_source import DeltaSource, is_delta_table
from lambda_spark.ingestion.field_mapping import FieldMapping
from lambda_spark.ingestion.file_source import FileSource
from lambda_spark.ingestion.kafka_source import KafkaSource
from lambda_spark.ingestion.micro_batch import INGEST_TABLES, Account, MicroBatch
from lambda_spark.ingestion.products import newest_products, product_attributes
from lambda_spark.ingestion.refused_users import FORGETTING
from lambda_spark.ingestion.source import Delivery, Source
from lambda_spark.settings import AVAILABLE_NOW, IngestSettings, KafkaSettings
from lambda_spark.source_description import REES46, SourceDescription, differences
from lambda_spark.storage.checkpoints import APPLICATION, Checkpoint, batch_time, new_application, open_checkpoint
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.stream import run_stream
from lambda_spark.storage.tables import EVENTS, INGESTION_LOG, PRODUCTS, REJECTED_EVENTS

logger = logging.getLogger(__name__)


# Reading all input again is safe here, because a stored event is recognised by its id. The counts of product pairs
# have no ids, so the speed job does not start over by itself.
_READ_AGAIN = "all input is read again, and lines that the lake already has are dropped as repeats"
_DESCRIBED = "source_description"
"""Prefix of the properties of `ingestion_log` that hold the source description of each stream."""
_COME_BACK = (
    "users who were forgotten without --refuse come back when their events are read again. Run `forget` for them again"
)


def ingest(
    lake: Lake,
    sources: Iterable[str],
    settings: IngestSettings,
    description: SourceDescription = REES46,
    *,
    accept_source: bool = False,
    trigger: str = AVAILABLE_NOW,
) -> Account:
    """Ingest the new files among the given files and folders.

    Args:
        lake: The lake. Missing tables are created.
        sources: Folders and files.
        settings: The settings of ingestion.
        description: How the files' records map to events.
        accept_source: Whether the description may differ from the one that the lake was read with.
        trigger: `available-now` to stop after the files that exist now, or an interval like `10 seconds` to keep
            running.

    Returns:
        The counts of the lines read. They come with the names of unreadable files and of files that were rewritten.

    Raises:
        UsageError: No source is named, a source does not exist, the sources cannot be read together, or the lake has
            ids of another kind.
    """
    _check_ids(lake, description.ids)
    named = list(sources)
    mapping = FieldMapping(lake.spark, description)
    tables = [source for source in named if is_delta_table(lake, source)]
    if tables and len(named) > 1:
        raise UsageError(f"{tables[0]} is a Delta table, which must be read alone: leave out the other sources")
    if tables:
        table = DeltaSource(lake, tables[0], settings, mapping)
        _prepare(lake, description)
        if table.application_key not in lake[EVENTS].properties():
            lake[EVENTS].set_properties({table.application_key: new_application()})
        return _record_description(lake, table, _ingest_described(lake, table, settings, trigger, accept_source))
    if description.format == "delta":
        raise UsageError(f"source.format is delta, but {', '.join(named)} is no folder of a Delta table")
    files = FileSource(lake, named, settings, mapping)
    _prepare(lake, description)
    at_start = files.present()
    account = _ingest_described(lake, files, settings, trigger, accept_source)
    with lake.locks.reader():
        stale = files.stale(at_start)
    again = [file for file in stale if file.was_refused or settings.reread == "changed"]
    if again:
        account = account + _read_again(lake, files.delivery_of(again), settings)
    _record_description(lake, files, account)
    left = (file.path.removeprefix("file:") for file in stale if file not in again)
    return replace(account, rewritten=tuple(left))


def _prepare(lake: Lake, description: SourceDescription) -> None:
    _restore_missing_tables(lake)
    create_tables(lake, ids=description.ids)


def _ingest_described(
    lake: Lake, source: Source, settings: IngestSettings, trigger: str, accept_source: bool
) -> Account:
    """Ingest a source, after a check that the lake was read with the same source description.

    Raises:
        UsageError: The description differs, and `accept_source` is false.
    """
    if not accept_source:
        check_description(lake, source.mapping.description, source.application_key)
    return _ingest_stream(lake, source, settings, trigger)


def check_description(lake: Lake, description: SourceDescription, application_key: str = APPLICATION) -> None:
    """Check that a source has been read with the same source description before, if at all.

    Args:
        lake: The lake.
        description: The description to check.
        application_key: Property of `events` that belongs to the source; by default that of files.

    Raises:
        UsageError: The description differs, or the lake has ids of another kind.
    """
    _check_ids(lake, description.ids)
    if not lake[INGESTION_LOG].exists():
        return
    recorded = lake[INGESTION_LOG].properties().get(f"{_DESCRIBED}.{application_key}")
    changes = [] if recorded is None else differences(recorded, description)
    if changes:
        raise UsageError(
            f"this lake has read its events with another source description ({'; '.join(changes)}). Use that "
            "description again, or another --lake. If the log itself has changed, add --accept-source"
        )


def _record_description(lake: Lake, source: Source, account: Account) -> Account:
    """Record the source description with `ingestion_log`, once records were read by it. Return the account."""
    recorded = {f"{_DESCRIBED}.{source.application_key}": source.mapping.description.as_text()}
    properties = lake[INGESTION_LOG].properties()
    if account.lines > len(account.unreadable) and not recorded.items() <= properties.items():
        lake[INGESTION_LOG].set_properties(recorded)
    return account


def _read_again(lake: Lake, delivery: Delivery, settings: IngestSettings) -> Account:
    """Read files that the stream has read before. Events that the lake already has are dropped as repeats."""
    with lake.locks.tables(*(table.name for table in INGEST_TABLES)):
        account = MicroBatch(lake, new_application(), settings, 0, delivery, datetime.now(UTC)).write()
    logger.info(f"read again: {account.parts} files, {account_text(account)}")
    renew_products(lake)
    return account


@dataclass(frozen=True, slots=True)
class Rejection:
    """A reason for rejections, with the number of its records."""

    reason: str
    """The reason, with `…` instead of the values that it quotes."""
    records: int
    keys: tuple[str, ...] = ()
    """Names of the values in one of these records, if the records are JSON objects."""


def main_rejections(lake: Lake, account: Account) -> list[Rejection]:
    """Find the three most frequent reasons why the records of a run were rejected.

    Args:
        lake: The lake.
        account: The counts of the run.
    """
    reason = F.regexp_replace(F.explode("reasons"), '"[^"]*"', '"…"').alias("reason")
    rejected = lake[REJECTED_EVENTS].read().where(F.col("ingest_batch").isin(*account.batches))
    rows = (
        rejected.select(reason, "raw")
        .groupBy("reason")
        .agg(F.count("*").alias("records"), F.min("raw").alias("raw"))
        .orderBy(F.desc("records"), "reason")
        .limit(3)
        .collect()
    )
    return [Rejection(row.reason, row.records, _keys(row.raw)) for row in rows]


def _keys(raw: str | None) -> tuple[str, ...]:
    try:
        value = json.loads(raw or "")
    except ValueError:
        return ()
    return tuple(value)[:20] if isinstance(value, dict) else ()


def account_text(account: Account, what: str = "records") -> str:
    """Write the counts of an account as a sum.

    Args:
        account: The counts.
        what: What is counted, as a plural.

    Returns:
        A text like `3 records = 1 events + 1 repeats + 1 rejected`, with the ignored ones if there are any.
    """
    ignored = f" + {account.ignored:,} ignored" if account.ignored else ""
    return (
        f"{account.lines:,} {what} = {account.events:,} events + {account.repeats:,} repeats + "
        f"{account.rejected:,} rejected{ignored}"
    )


def ingest_topic(
    lake: Lake,
    kafka: KafkaSettings,
    settings: IngestSettings,
    description: SourceDescription = REES46,
    *,
    accept_source: bool = False,
    from_start: bool = False,
    trigger: str = AVAILABLE_NOW,
) -> Account:
    """Ingest the new messages of a Kafka topic.

    Args:
        lake: The lake. Missing tables are created.
        kafka: The topic and its servers.
        settings: The settings of ingestion.
        description: How the messages' records map to events.
        accept_source: Whether the description may differ from the one that the topic was read with.
        from_start: Whether to read the topic again from its earliest offset.
        trigger: `available-now` to stop after the messages that exist now, or an interval like `10 seconds` to keep
            running.

    Returns:
        The counts of the messages read.

    Raises:
        UsageError: The topic does not exist or is not named, the client properties cannot be read, or the lake has ids
            of another kind.
        KafkaError: No broker answers, Kafka has deleted unread messages, or the topic was deleted and created again.
    """
    _check_ids(lake, description.ids)
    topic = KafkaSource(lake.spark, kafka, FieldMapping(lake.spark, description))
    topic_id = topic.look_up()
    _prepare(lake, description)
    recorded_id = lake[EVENTS].properties().get(topic.id_key)
    if from_start or recorded_id is None:
        lake[EVENTS].set_properties({topic.application_key: new_application(), topic.id_key: topic_id})
        logger.info(f"reading topic {kafka.topic} from its earliest offset")
    elif recorded_id != topic_id:
        raise topic.was_recreated()
    with topic.errors_in_one_line():
        return _record_description(lake, topic, _ingest_described(lake, topic, settings, trigger, accept_source))


def create_tables(lake: Lake, properties: Mapping[str, str] | None = None, *, ids: Ids = "integer") -> None:
    """Create the tables that ingestion writes, where they do not exist yet.

    Args:
        lake: The lake.
        properties: Further properties for `events`, used only if that table is created now.
        ids: The kind of product and user ids. A new lake records it.

    Raises:
        UsageError: The lake has ids of another kind.
    """
    lake.create(EVENTS, properties={APPLICATION: new_application(), IDS: ids, **(properties or {})})
    _check_ids(lake, ids)
    lake.create(REJECTED_EVENTS, INGESTION_LOG, PRODUCTS)


def _check_ids(lake: Lake, ids: Ids) -> None:
    """Check that the ids to ingest are of the kind of the lake's ids.

    Raises:
        UsageError: The lake has ids of the other kind.
    """
    if lake[EVENTS].exists() and lake.ids != ids:
        raise UsageError(
            f"{lake.path} has {WORDS[lake.ids]} as ids (recorded with the table events), not {WORDS[ids]}: name "
            f'another --lake, or set source.ids to "{lake.ids}"'
        )


def _restore_missing_tables(lake: Lake) -> None:
    """Rebuild `products` from `events` if it is lost. If another table is lost, make the job read all input again."""
    if not lake[EVENTS].exists() or lake[EVENTS].last_commit(job="ingest") is None:
        return
    if not lake[PRODUCTS].exists():
        logger.info("products is missing. It is rebuilt from events")
        renew_products(lake)
    missing = [table.name for table in (REJECTED_EVENTS, INGESTION_LOG) if not lake[table].exists()]
    if missing:
        keys = [key for key in lake[EVENTS].properties() if key.partition(".")[0] == APPLICATION]
        each = " (files and topics, each by the next job that reads it)" if len(keys) > 1 else ""
        _start_over(lake, keys, f"{', '.join(missing)} is missing, so {_READ_AGAIN}{each}")


def _start_over(lake: Lake, keys: Sequence[str], reason: str) -> None:
    """Make streams read their input from the start, by storing new application ids in the properties of `events`.

    Each application id has its own checkpoint folder, so a stream with a new id starts with an empty checkpoint.

    Args:
        lake: The lake.
        keys: Names of the properties that hold the application ids of these streams.
        reason: Text to log, which says why the input is read again.
    """
    logger.info(reason)
    if warning := who_comes_back(lake):
        logger.info(warning)
    lake[EVENTS].set_properties({key: new_application() for key in keys})


def who_comes_back(lake: Lake) -> str:
    """Return the warning to show before input is read again.

    Returns:
        A warning that forgotten users come back, or an empty text if no users were ever forgotten.
    """
    return _COME_BACK if FORGETTING in lake[EVENTS].properties() else ""


def _ingest_stream(lake: Lake, source: Source, settings: IngestSettings, trigger: str) -> Account:
    checkpoint = _open_or_start_over(lake, source)
    total = Account()

    def process(batch: DataFrame, batch_id: int) -> None:
        nonlocal total
        started = time.monotonic()
        # Hold the locks for the whole micro-batch. No other job may change the tables between its reads and writes.
        with lake.locks.tables(*(table.name for table in INGEST_TABLES)):
            delivery = source.delivery(batch, checkpoint, batch_id)
            planned_at = batch_time(lake, checkpoint, batch_id)
            account = MicroBatch(lake, checkpoint.application, settings, batch_id, delivery, planned_at).write()
        logger.info(
            f"micro-batch {batch_id}: {account.parts} {source.unit}, {account_text(account)} "
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
    """Bring `products` up to date with `events`.

    Normally this function reads only the events added since its last run. It reads all events if events were deleted
    since then, or if events that were set aside count now or the reverse. It also reads all events if the Delta log of
    `events` lacks some commits since then.
    """
    lake.create(PRODUCTS)
    with lake.locks.reader(), lake.locks.table(PRODUCTS.name):
        version = lake[EVENTS].version()
        last_commit = lake[PRODUCTS].last_commit()
        last_note = {} if last_commit is None else last_commit.note
        covered = last_note.get("events_version")
        if covered is not None and lake[EVENTS].latest_version_with_same_rows(covered) == version:
            return
        newest = lake.newest(version)
        note = {"job": "ingest", "events_version": version, **newest.to_note()}
        has_log = covered is not None and covered <= version and lake[EVENTS].has_log_since(covered)
        if covered is not None and has_log and newest.only_adds_to(last_note):
            changes = lake[EVENTS].changes(covered, version)
            if changes.where(F.col("_change_type") != "insert").isEmpty():
                new = product_attributes(changes, newest.date)
                lake[PRODUCTS].overwrite(newest_products(lake[PRODUCTS].read(), new, newest.date), note=note)
                return
        lake[PRODUCTS].overwrite(product_attributes(lake[EVENTS].read(version), newest.date), note=note)


def _open_or_start_over(lake: Lake, source: Source) -> Checkpoint:
    """Open the checkpoint of a source, or start over with a new one if it is lost or belongs to other tables."""
    key = source.application_key
    try:
        return open_checkpoint(lake, source.name, EVENTS, advice=_READ_AGAIN, key=key, parts=source.checkpoint_parts)
    except CheckpointError as error:
        _start_over(lake, [key], str(error))
        return open_checkpoint(lake, source.name, EVENTS, advice="", key=key)
