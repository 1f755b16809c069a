"""One micro-batch of lines on its way into `events`, `rejected_events` and `ingested_files`.

Killed and run again, it finds its own commits by their notes and appends only what is missing.
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
from lambda_spark.ingestion.refused_users import REFUSING, SALT, Refusals, refuse
from lambda_spark.ingestion.source import Delivery, Part, part_of
from lambda_spark.ingestion.validation import validate
from lambda_spark.settings import IngestSettings
from lambda_spark.spark import dates_with_few, fit_partitions, literal_rows, side_by_side, varying
from lambda_spark.storage.checkpoints import PLANNED_AT, Checkpoint, batch_time
from lambda_spark.storage.lake import Lake, cut_in
from lambda_spark.storage.tables import EVENTS, INGESTED_FILES, REFUSED_USERS, REJECTED_EVENTS, Table

INGEST_TABLES = (EVENTS, REJECTED_EVENTS, INGESTED_FILES)
"""What a micro-batch writes."""

_FEW_LINES = 100_000
"""A micro-batch of no more lines is written as one file for each date, no more bad ones as one file; no more are
broadcast."""
_SOME_DATES = 50
"""A condition names the times of so many dates, of more only the dates."""
_FEW_REPEATS = 2_000_000
"""So many repeats in a micro-batch can be broadcast."""


@dataclass(slots=True)
class _Lines:
    """What was read of a part."""

    lines: int = 0
    headers: int = 0
    valid: int = 0


@dataclass(slots=True)
class _Span:
    """What a micro-batch brings to a date: so many valid events, from the first to the last, in epoch microseconds."""

    valid: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the lines: lines = events + repeats + rejected."""

    parts: int = 0
    lines: int = 0
    events: int = 0
    repeats: int = 0
    rejected: int = 0
    unreadable: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    def __add__(self, other: Account) -> Account:
        return Account(
            self.parts + other.parts,
            self.lines + other.lines,
            self.events + other.events,
            self.repeats + other.repeats,
            self.rejected + other.rejected,
            self.unreadable + other.unreadable,
            self.rewritten + other.rewritten,
        )


def _refusals(lake: Lake, properties: Mapping[str, str]) -> Refusals | None:
    """Who is refused; None where nobody is. `properties` are those of `events`."""
    if not lake.exists(REFUSED_USERS):
        if REFUSING in properties:
            raise LakeError(
                f"{lake.path}: the table refused_users is missing, and with it who is refused: bring it back from a "
                "backup, or refuse them again with `forget --users-file FILE --refuse`"
            )
        return None
    return Refusals(lake.properties(REFUSED_USERS)[SALT], lake.read(REFUSED_USERS, lake.version(REFUSED_USERS)))


def _is_valid() -> Column:
    """Whether an inspected line is a valid event."""
    return (F.size("reasons") == 0) & ~F.col("is_header")


def _lies_in(spans: Mapping[date, _Span], dates: Set[date]) -> Column:
    """Whether an event may equal one that came to these dates; by its time, files are skipped within a date."""
    on_dates = F.col("event_date").isin(sorted(dates))
    if len(dates) > _SOME_DATES:
        return on_dates
    within = (
        F.col("event_time").between(F.timestamp_micros(F.lit(span.first)), F.timestamp_micros(F.lit(span.last)))
        for span in (spans[day] for day in sorted(dates))
    )
    return on_dates & reduce(Column.__or__, within, F.lit(False))


class MicroBatch:
    """One micro-batch on its way into the tables."""

    def __init__(
        self, lake: Lake, checkpoint: Checkpoint, settings: IngestSettings, batch_id: int, delivery: Delivery
    ) -> None:
        self.lake = lake
        self.spark = lake.spark
        self.application = checkpoint.application
        self.settings = settings
        self.batch_id = batch_id
        self.name = f"{checkpoint.application}:{batch_id}"
        self.delivery = delivery
        self.ingested_at: datetime = batch_time(lake, checkpoint, batch_id)

    def write(self) -> Account:
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
                # One part cannot be read (a cut .gz, say). Find it, refuse it, and read the rest.
                if not self.delivery.refuse_unreadable(error):
                    raise
        account = self._write(inspected, lines)
        inspected.unpersist()
        return account

    def _inspect(self) -> DataFrame:
        """Every line that can be read, typed, with its reasons; kept, since several steps need it."""
        fields = self.delivery.lines().withColumn("ingested_at", varying(self.ingested_at, "timestamp"))
        properties = self.lake.properties(EVENTS)
        validated = validate(fields, earliest=self.settings.earliest, cut=cut_in(properties)).drop("ingested_at")
        is_rejected = F.size("reasons") > 0
        # Only what is rejected needs its line any more.
        inspected = validated.withColumn("raw", F.when(is_rejected, F.col("raw")))
        refusals = _refusals(self.lake, properties)
        if refusals is None:
            inspected = inspected.withColumn("mark", F.lit(None).cast("string"))
        else:
            inspected = refuse(inspected, refusals)
        return inspected.persist(StorageLevel.MEMORY_AND_DISK)

    def _count_lines(self, inspected: DataFrame) -> list[Row]:
        """Per part and date of its valid events (null for other lines): lines, header lines, first and last time."""
        date_if_valid = F.when(_is_valid(), F.col("event_date"))
        return (
            inspected.groupBy(part_of(F.col("source")).alias("part"), date_if_valid.alias("date"))
            .agg(
                F.count("*").alias("lines"),
                F.count_if("is_header").alias("headers"),
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
            if row.date is not None:
                part.valid += row.lines
                span = spans.setdefault(row.date, _Span(0, row.first, row.last))
                span.valid += row.lines
                span.first, span.last = min(span.first, row.first), max(span.last, row.last)
        dates = sorted(spans)
        note = {"job": "ingest", PLANNED_AT: self.ingested_at.isoformat()}
        new, newly_rejected = side_by_side(
            partial(self._append_events, inspected, spans, note),
            partial(self._append_rejected, inspected, lines, note),
        )
        parts = self.delivery.parts(inspected)
        events, rejected = side_by_side(
            partial(self._written, EVENTS, new, parts, dates),
            partial(self._written, REJECTED_EVENTS, newly_rejected, parts),
        )
        accounts = self._accounts(parts, lines, events, rejected)
        self._append_parts(parts, accounts, note)
        return sum(accounts.values(), Account())

    def _append_events(self, inspected: DataFrame, spans: Mapping[date, _Span], note: dict[str, str]) -> int | None:
        """Returns as `_append` does."""
        valid = inspected.where(_is_valid())
        # At a version: of a table as it is now Spark would plan again, after the append, what is cached of it.
        events = self.lake.read(EVENTS, self.lake.version(EVENTS))
        few = dates_with_few({day: span.valid for day, span in spans.items()}, _FEW_LINES)
        # What came late brings little to many dates: of what is known there, much more than this, nothing is exchanged.
        brought = F.broadcast(valid.where(F.col("event_date").isin(few)).select("event_id"))
        known_on_few = events.where(_lies_in(spans, few)).select("event_id")
        known_on_few = known_on_few.join(brought, on="event_id", how="left_semi")
        if len(few) == len(spans):
            # One file for each date.
            new = valid.repartition("event_date").dropDuplicates(["event_date", "event_id"])
            return self._append(EVENTS, new.join(F.broadcast(known_on_few), on="event_id", how="left_anti"), note)
        known_on_few = known_on_few.persist(StorageLevel.MEMORY_AND_DISK)
        known = events.where(_lies_in(spans, spans.keys() - few)).select("event_id").union(known_on_few)
        twice = twice_seen(valid, known).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            if twice.count() <= _FEW_REPEATS:
                new = distinct_new(valid, known, twice)
            else:
                new = valid.dropDuplicates(["event_id"]).join(known, on="event_id", how="left_anti")
            return self._append(EVENTS, new, note)
        finally:
            twice.unpersist()
            known_on_few.unpersist()

    def _append_rejected(self, inspected: DataFrame, lines: Mapping[str, _Lines], note: dict[str, str]) -> int | None:
        """Returns as `_append` does."""
        not_utf8 = ~F.is_valid_utf8("raw")
        raw_bytes = F.col("raw").cast("binary")
        bad_lines = inspected.where((F.size("reasons") > 0) & ~F.col("is_header")).select(
            F.substring(F.coalesce("mark", F.sha2(raw_bytes, 256)), 1, 32).alias("rejected_id"),
            F.make_valid_utf8("raw").alias("raw"),
            F.when(not_utf8, raw_bytes).alias("raw_bytes"),
            "reasons",
            "source",
        )
        others = [{"source": part, "reasons": [reason]} for part, reason in self.delivery.refused.items()]
        others += [
            {"source": part, "reasons": ["header line repeated"]} for part, read in lines.items() if read.headers > 1
        ]
        bad = sum(read.lines - read.headers - read.valid for read in lines.values())
        if not others and not bad:
            return 0
        extra = literal_rows(self.spark, others, "source: string, reasons: array<string>").select(
            F.substring(F.sha2(F.concat_ws("|", "source", F.col("reasons")[0]), 256), 1, 32).alias("rejected_id"),
            F.lit(None).cast("string").alias("raw"),
            F.lit(None).cast("binary").alias("raw_bytes"),
            "reasons",
            "source",
        )
        known = self.lake.read(REJECTED_EVENTS, self.lake.version(REJECTED_EVENTS)).select("rejected_id")
        rows = bad_lines.unionByName(extra)
        if bad <= _FEW_LINES:
            # One file; and of what is known, maybe much more than this, nothing is exchanged.
            rows = rows.repartition(1)
            known = F.broadcast(known.join(F.broadcast(rows.select("rejected_id")), on="rejected_id", how="left_semi"))
        new = rows.dropDuplicates(["rejected_id"]).join(known, on="rejected_id", how="left_anti")
        return self._append(REJECTED_EVENTS, new, note)

    def _append(self, table: Table, rows: DataFrame, note: dict[str, str]) -> int | None:
        """Append this micro-batch's rows; returns how many, None where that has to be asked for (a replay)."""
        stamped = rows.withColumns(
            {"ingested_at": varying(self.ingested_at, "timestamp"), "ingest_batch": F.lit(self.name)}
        )
        return self.lake.append_batch(table, stamped, application=self.application, batch_id=self.batch_id, note=note)

    def _written(
        self, table: Table, appended: int | None, parts: Collection[str], dates: Sequence[date] = ()
    ) -> dict[str, int]:
        """Rows that this micro-batch has in a table, by part: those just appended where that says it, else read back,
        so that a replay counts the same."""
        if appended is not None and (len(parts) == 1 or not appended):
            return dict.fromkeys(parts, appended)
        # By its time other micro-batches' files are skipped.
        is_own = (F.col("ingested_at") == F.lit(self.ingested_at)) & (F.col("ingest_batch") == self.name)
        rows = self.lake.read(table).where(is_own)
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
            accounts[part] = Account(1, 1, 0, 1 - new, new, unreadable=(f"{parts[part].path}: {reason}",))
        for part, read in lines.items():
            count = read.lines - min(read.headers, 1)
            new, bad = events.get(part, 0), rejected.get(part, 0)
            accounts[part] = Account(1, count, new, (read.valid - new) + (count - read.valid - bad), bad)
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
            }
            for part, account in accounts.items()
        ]
        counts = ", ".join(f"{name}: bigint" for name in ("bytes", "lines", "events", "repeats", "rejected"))
        schema = f"source: string, modified_at: timestamp, {counts}"
        if rows:
            self._append(INGESTED_FILES, literal_rows(self.spark, rows, schema), note)
