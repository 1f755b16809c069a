"""Writing of one micro-batch of lines to `events`, `rejected_events` and `ingestion_log`.

Each commit records the stream's application id and the number of the micro-batch. If a killed micro-batch runs again,
these records show which of its commits succeeded. Only the missing rows are then appended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial, reduce

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError
from lambda_spark.ingestion.deduplication import distinct_new, twice_seen
from lambda_spark.ingestion.file_formats import UNKNOWN_KIND
from lambda_spark.ingestion.refused_users import REFUSING, SALT, Refusals, refuse
from lambda_spark.ingestion.source import Delivery, Part, part_of
from lambda_spark.ingestion.validation import validate
from lambda_spark.settings import IngestSettings
from lambda_spark.spark import column_constant, fit_partitions, literal_rows, run_concurrently, smallest_dates_up_to
from lambda_spark.storage.checkpoints import PLANNED_AT
from lambda_spark.storage.lake import Lake, retention_cutoff_in
from lambda_spark.storage.tables import EVENTS, INGESTION_LOG, REFUSED_USERS, REJECTED_EVENTS, Table

INGEST_TABLES = (EVENTS, REJECTED_EVENTS, INGESTION_LOG)
"""Tables that each micro-batch of ingestion writes."""

_FEW_LINES = 100_000
"""Largest number of lines that ingestion broadcasts.

Up to this many events are written as one file per date. Up to this many rejected lines are written as one file.
"""
_SOME_DATES = 50
"""Largest number of dates for which a filter on stored events also compares event times.

With more dates, the filter compares only the dates.
"""
_FEW_REPEATS = 2_000_000
"""Largest number of repeated event ids for which ingestion broadcasts the ids' hashes."""


@dataclass(slots=True)
class _Lines:
    """Numbers of records, by what they are, in one file or in the messages of one Kafka partition."""

    lines: int = 0
    headers: int = 0
    valid: int = 0
    ignored: int = 0
    nulled: int = 0


@dataclass(slots=True)
class _Span:
    """Number of valid events on one date, and the times of the first and last of them in epoch microseconds."""

    valid: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be read, with the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Account:
    """Counts of records by what became of them. The formula is lines = events + repeats + rejected + ignored."""

    parts: int = 0
    lines: int = 0
    events: int = 0
    repeats: int = 0
    rejected: int = 0
    ignored: int = 0
    nulled: int = 0
    """Number of valid events with a malformed optional field."""
    unreadable: tuple[Unreadable, ...] = ()
    """Files that could not be read, each with the reason."""
    rewritten: tuple[str, ...] = ()
    """Paths of the files that changed after Spark had seen them. Spark does not read these files again."""

    batches: tuple[str, ...] = ()
    """Values of `ingest_batch` of the micro-batches that rejected records."""

    @property
    def needs_attention(self) -> bool:
        """Whether a file could not be read, other than for its kind, or changed after it was read."""
        return bool(self.rewritten) or any(not file.reason.startswith(UNKNOWN_KIND) for file in self.unreadable)

    def __add__(self, other: Account) -> Account:
        return Account(
            self.parts + other.parts,
            self.lines + other.lines,
            self.events + other.events,
            self.repeats + other.repeats,
            self.rejected + other.rejected,
            self.ignored + other.ignored,
            self.nulled + other.nulled,
            self.unreadable + other.unreadable,
            self.rewritten + other.rewritten,
            tuple(dict.fromkeys(self.batches + other.batches)),
        )


def _refusals(lake: Lake, properties: Mapping[str, str]) -> Refusals | None:
    """Return the users whose lines must be rejected, or None if no user is refused.

    Args:
        lake: The lake.
        properties: Properties of `events`.

    Raises:
        LakeError: The table of refused users is lost.
    """
    if not lake[REFUSED_USERS].exists():
        if REFUSING in properties:
            raise LakeError(
                f"{lake.path}: the table refused_users is missing, so nobody knows which users are refused. Bring the "
                "table back from a backup, or refuse the users again with `forget --users-file FILE --refuse`"
            )
        return None
    return Refusals(lake[REFUSED_USERS].properties()[SALT], lake[REFUSED_USERS].read(lake[REFUSED_USERS].version()))


def _is_valid() -> Column:
    """Whether a validated line is a valid event."""
    return (F.size("reasons") == 0) & ~F.col("is_header") & ~F.col("is_ignored")


def _may_be_repeated(spans: Mapping[date, _Span], dates: Set[date]) -> Column:
    """Return the filter for stored events that may equal an event of the micro-batch on one of the given dates.

    For few dates the filter also compares event times, so that Delta skips files within a date.
    """
    on_dates = F.col("event_date").isin(sorted(dates))
    if len(dates) > _SOME_DATES:
        return on_dates
    within = (
        F.col("event_time").between(F.timestamp_micros(F.lit(span.first)), F.timestamp_micros(F.lit(span.last)))
        for span in (spans[day] for day in sorted(dates))
    )
    return on_dates & reduce(Column.__or__, within, F.lit(False))


class MicroBatch:
    """One micro-batch of ingestion: validates its lines and writes them to the tables in `INGEST_TABLES`."""

    def __init__(
        self,
        lake: Lake,
        application: str,
        settings: IngestSettings,
        batch_id: int,
        delivery: Delivery,
        ingested_at: datetime,
    ) -> None:
        self.lake = lake
        self.spark = lake.spark
        self.application = application
        self.settings = settings
        self.batch_id = batch_id
        self.name = f"{application}:{batch_id}"
        self.delivery = delivery
        self.mapping = delivery.mapping
        self.ingested_at = ingested_at

    def write(self) -> Account:
        """Validate the lines of the micro-batch and append them to the tables.

        Returns:
            The counts of lines, events, repeats and rejections.

        Raises:
            LakeError: The table of refused users is lost.
            LambdaSparkError: A file could not be read for a temporary reason.
        """
        fit_partitions(self.spark, self.delivery.bytes)
        while True:
            inspected = None
            try:
                inspected = self._inspect()
                lines = self._count_lines(inspected)
                break
            except Exception as error:
                if inspected is not None:
                    inspected.unpersist()
                # Perhaps a file cannot be read, for example a truncated .gz file. Refuse that file and read the others.
                if not self.delivery.refuse_unreadable(error):
                    raise
        account = self._write(inspected, lines)
        inspected.unpersist()
        return account

    def _inspect(self) -> DataFrame:
        """Validate the lines of the micro-batch. Spark caches the result, because several queries read it."""
        fields = self.delivery.lines().withColumn("ingested_at", column_constant(self.ingested_at, "timestamp"))
        properties = self.lake[EVENTS].properties()
        validated = validate(
            fields,
            self.mapping.description,
            self.mapping.labels,
            min_event_date=self.settings.min_event_date,
            max_ahead=self.settings.max_ahead,
            retention_cutoff=retention_cutoff_in(properties),
            category_type=dict(self.lake[EVENTS].read().dtypes)["category_id"],
        ).drop("ingested_at")
        is_rejected = F.size("reasons") > 0
        # Keep the raw text of rejected lines only, because only rejected lines are stored as text.
        inspected = validated.withColumn("raw", F.when(is_rejected, F.col("raw")))
        refusals = _refusals(self.lake, properties)
        if refusals is None:
            inspected = inspected.withColumn("mark", F.lit(None).cast("string"))
        else:
            inspected = refuse(inspected, refusals)
        return inspected.persist(StorageLevel.MEMORY_AND_DISK)

    def _count_lines(self, inspected: DataFrame) -> list[Row]:
        """Per file or Kafka partition and date, count lines and find the first and last event time.

        The date is null for lines that are not valid events. Header lines are also counted separately.
        """
        date_if_valid = F.when(_is_valid(), F.col("event_date"))
        return (
            inspected.groupBy(part_of(F.col("source")).alias("part"), date_if_valid.alias("date"))
            .agg(
                F.count("*").alias("lines"),
                F.count_if("is_header").alias("headers"),
                F.count_if(F.col("is_ignored") & ~F.col("is_header")).alias("ignored"),
                F.count_if(_is_valid() & F.col("nulled_fields").isNotNull()).alias("nulled"),
                F.unix_micros(F.min("event_time")).alias("first"),
                F.unix_micros(F.max("event_time")).alias("last"),
            )
            .collect()
        )

    def _write(self, inspected: DataFrame, counted: list[Row]) -> Account:
        lines: defaultdict[str, _Lines] = defaultdict(_Lines)
        spans: dict[date, _Span] = {}
        for row in counted:
            part = lines[row.part]
            part.lines += row.lines
            part.headers += row.headers
            part.ignored += row.ignored
            part.nulled += row.nulled
            if row.date is not None:
                part.valid += row.lines
                span = spans.setdefault(row.date, _Span(0, row.first, row.last))
                span.valid += row.lines
                span.first, span.last = min(span.first, row.first), max(span.last, row.last)
        dates = sorted(spans)
        note = {"job": "ingest", PLANNED_AT: self.ingested_at.isoformat()}
        new, newly_rejected = run_concurrently(
            partial(self._append_events, inspected, spans, note),
            partial(self._append_rejected, inspected, lines, note),
        )
        parts = self.delivery.parts(inspected)
        events, rejected = run_concurrently(
            partial(self._count_rows, EVENTS, new, parts, dates),
            partial(self._count_rows, REJECTED_EVENTS, newly_rejected, parts),
        )
        accounts = self._accounts(parts, lines, events, rejected)
        self._append_parts(parts, accounts, note)
        batches = (self.name,) if newly_rejected != 0 else ()
        return sum(accounts.values(), Account(batches=batches))

    def _append_events(self, inspected: DataFrame, spans: Mapping[date, _Span], note: dict[str, str]) -> int | None:
        """Append the events that are not stored yet to `events`. The return value is that of `_append`."""
        valid = inspected.where(_is_valid())
        # Read a fixed version of `events`. Otherwise, appending to `events` would invalidate the cached DataFrames.
        events = self.lake[EVENTS].read(self.lake[EVENTS].version())
        small_dates = smallest_dates_up_to({day: span.valid for day, span in spans.items()}, _FEW_LINES)
        # Late events are spread over many dates, with few on each date. Broadcast their ids, so that Spark does not
        # shuffle the stored events of these dates.
        ids_on_small_dates = F.broadcast(valid.where(F.col("event_date").isin(small_dates)).select("event_id"))
        known_repeats = events.where(_may_be_repeated(spans, small_dates)).select("event_id")
        known_repeats = known_repeats.join(ids_on_small_dates, on="event_id", how="left_semi")
        if len(small_dates) == len(spans):
            # Repartition by date, so that each date gets one file.
            new = valid.repartition("event_date").dropDuplicates(["event_date", "event_id"])
            return self._append(EVENTS, new.join(F.broadcast(known_repeats), on="event_id", how="left_anti"), note)
        known_repeats = known_repeats.persist(StorageLevel.MEMORY_AND_DISK)
        known = (
            events.where(_may_be_repeated(spans, spans.keys() - small_dates)).select("event_id").union(known_repeats)
        )
        twice = twice_seen(valid, known).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            if twice.count() <= _FEW_REPEATS:
                new = distinct_new(valid, known, twice)
            else:
                new = valid.dropDuplicates(["event_id"]).join(known, on="event_id", how="left_anti")
            return self._append(EVENTS, new, note)
        finally:
            twice.unpersist()
            known_repeats.unpersist()

    def _append_rejected(self, inspected: DataFrame, lines: Mapping[str, _Lines], note: dict[str, str]) -> int | None:
        """Append the rejected lines that are not stored yet. The return value is that of `_append`."""
        not_utf8 = ~F.is_valid_utf8("raw")
        raw_bytes = F.col("raw").cast("binary")
        # Tell the elements of one array apart. Without an array nothing is added to the line's bytes.
        position = F.coalesce(F.concat(F.lit("#"), F.col("position")), F.lit("")).cast("binary")
        bad_lines = inspected.where((F.size("reasons") > 0) & ~F.col("is_header")).select(
            F.substring(F.coalesce("mark", F.sha2(F.concat(raw_bytes, position), 256)), 1, 32).alias("rejected_id"),
            F.make_valid_utf8("raw").alias("raw"),
            F.when(not_utf8, raw_bytes).alias("raw_bytes"),
            "reasons",
            "source",
        )
        rejected_parts = [{"source": part, "reasons": [reason]} for part, reason in self.delivery.refused.items()]
        rejected_parts += [
            {"source": part, "reasons": ["header line repeated"]} for part, read in lines.items() if read.headers > 1
        ]
        bad = sum(read.lines - read.headers - read.valid - read.ignored for read in lines.values())
        if not rejected_parts and not bad:
            return 0
        part_rows = literal_rows(self.spark, rejected_parts, "source: string, reasons: array<string>").select(
            F.substring(F.sha2(F.concat_ws("|", "source", F.col("reasons")[0]), 256), 1, 32).alias("rejected_id"),
            F.lit(None).cast("string").alias("raw"),
            F.lit(None).cast("binary").alias("raw_bytes"),
            "reasons",
            "source",
        )
        known = self.lake[REJECTED_EVENTS].read(self.lake[REJECTED_EVENTS].version()).select("rejected_id")
        rows = bad_lines.unionByName(part_rows)
        if bad <= _FEW_LINES:
            # Write one file. Broadcast the ids of the new rows, so that Spark does not shuffle the many stored rows.
            rows = rows.repartition(1)
            known = F.broadcast(known.join(F.broadcast(rows.select("rejected_id")), on="rejected_id", how="left_semi"))
        new = rows.dropDuplicates(["rejected_id"]).join(known, on="rejected_id", how="left_anti")
        return self._append(REJECTED_EVENTS, new, note)

    def _append(self, table: Table, rows: DataFrame, note: dict[str, str]) -> int | None:
        """Append rows of this micro-batch to a table.

        Returns:
            The number of rows appended. None if only a query of the table can find this number, for example if the
            micro-batch had already appended the rows before a crash.
        """
        stamped = rows.withColumns(
            {"ingested_at": column_constant(self.ingested_at, "timestamp"), "ingest_batch": F.lit(self.name)}
        )
        return self.lake[table].append_batch(stamped, application=self.application, batch_id=self.batch_id, note=note)

    def _count_rows(
        self, table: Table, appended: int | None, parts: Collection[str], dates: Sequence[date] = ()
    ) -> dict[str, int]:
        """Count the rows that this micro-batch appended to a table, per file or Kafka partition.

        If `appended` is 0, or if there is only one file or partition, `appended` is the count. Otherwise this method
        counts rows in the table. So a micro-batch that runs again after a crash gets the same counts.
        """
        if appended is not None and (len(parts) == 1 or not appended):
            return dict.fromkeys(parts, appended)
        # Filter by `ingested_at` too, because Delta then skips the files that other micro-batches wrote.
        is_own = (F.col("ingested_at") == F.lit(self.ingested_at)) & (F.col("ingest_batch") == self.name)
        rows = self.lake[table].read().where(is_own)
        if dates:
            rows = rows.where(F.col("event_date").isin(dates))
        part = part_of(F.col("source")).alias("part")
        return {row.part: row["count"] for row in rows.groupBy(part).count().collect()}

    def _accounts(
        self,
        parts: Mapping[str, Part],
        lines: Mapping[str, _Lines],
        events: dict[str, int],
        rejected: dict[str, int],
    ) -> dict[str, Account]:
        accounts = {part: Account(parts=1) for part in parts}
        for part, reason in self.delivery.refused.items():
            new = rejected.get(part, 0)
            refused = (Unreadable(parts[part].path, reason),)
            accounts[part] = Account(1, 1, 0, 1 - new, new, unreadable=refused)
        for part, read in lines.items():
            count = read.lines - min(read.headers, 1)
            new, bad = events.get(part, 0), rejected.get(part, 0)
            repeats = (read.valid - new) + (count - read.valid - read.ignored - bad)
            accounts[part] = Account(1, count, new, repeats, bad, read.ignored, read.nulled)
        return accounts

    def _append_parts(self, parts: Mapping[str, Part], accounts: Mapping[str, Account], note: dict[str, str]) -> None:
        rows = [
            {
                "source": parts[part].source,
                "modified_at": parts[part].modified_at.astimezone(UTC).isoformat(),
                "bytes": parts[part].bytes,
                "lines": account.lines,
                "events": account.events,
                "repeats": account.repeats,
                "rejected": account.rejected,
                "ignored": account.ignored,
                "nulled": account.nulled,
                "refused": bool(account.unreadable),
                "source_description": self.mapping.description.hash,
            }
            for part, account in accounts.items()
        ]
        names = ("bytes", "lines", "events", "repeats", "rejected", "ignored", "nulled")
        counts = ", ".join(f"{name}: bigint" for name in names)
        schema = f"source: string, modified_at: timestamp, {counts}, refused: boolean, source_description: string"
        if rows:
            self._append(INGESTION_LOG, literal_rows(self.spark, rows, schema), note)
