"""Files into `events`, `rejected_events`, `ingested_files` and `products`, each event once.

Spark's file stream says which files are new and remembers them; the files themselves are read here, grouped by layout.
A micro-batch killed anywhere and run again appends the same rows under the same transaction id, so Delta keeps one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from functools import reduce

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from lambda_spark.errors import CheckpointError, UsageError
from lambda_spark.events.products import newest_products, product_attributes
from lambda_spark.events.refusals import SALT, Refusals, refuse
from lambda_spark.events.sources import FileGroup, Layout, UnreadableFileError, layout_of, read_group, reason_of
from lambda_spark.events.validation import FIELDS, validate
from lambda_spark.lake import Lake
from lambda_spark.operations.checkpoints import (
    APPLICATION,
    Checkpoint,
    new_application,
    open_checkpoint,
    run_stream,
)
from lambda_spark.operations.files import FileSystem, escape_glob
from lambda_spark.operations.triggers import AVAILABLE_NOW
from lambda_spark.session import literal_rows
from lambda_spark.settings import IngestSettings, size_in_bytes
from lambda_spark.tables import EVENTS, INGESTED_FILES, PRODUCTS, REFUSED_USERS, REJECTED_EVENTS, Table

_NEVER_FORGET = "36500d"
"""Age beyond which Spark's file stream would ignore a file; its default of 7 days is counted from the newest file."""

INGEST_TABLES = (EVENTS, REJECTED_EVENTS, INGESTED_FILES, PRODUCTS)
"""What a micro-batch writes."""

_FILE_COLUMNS = "path string, modificationTime timestamp, length bigint, content binary"


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the lines: lines = events + repeats + rejected."""

    files: int = 0
    lines: int = 0
    events: int = 0
    repeats: int = 0
    rejected: int = 0
    unreadable: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    def __add__(self, other: Account) -> Account:
        return Account(
            self.files + other.files,
            self.lines + other.lines,
            self.events + other.events,
            self.repeats + other.repeats,
            self.rejected + other.rejected,
            self.unreadable + other.unreadable,
            self.rewritten + other.rewritten,
        )


Progress = Callable[[str], None]


def ingest(
    lake: Lake, sources: Iterable[str], settings: IngestSettings, *, trigger: str = AVAILABLE_NOW, progress: Progress
) -> Account:
    """Read what is new in the sources (folders or files) and return the account of it.

    Raises UsageError for a source that does not exist.
    """
    pattern = _source_pattern(lake, list(sources))
    create_tables(lake)
    checkpoint = _checkpoint(lake, progress)
    files = (
        lake.spark.readStream.format("binaryFile")
        .schema(_FILE_COLUMNS)
        .option("recursiveFileLookup", "true")
        .option("maxFileAge", _NEVER_FORGET)
        .option("maxBytesPerTrigger", size_in_bytes(settings.max_bytes_per_batch, "ingest.max_bytes_per_batch"))
        .load(pattern)
        .select("path", "modificationTime", "length", F.current_timestamp().alias("ingested_at"))
    )
    total = Account()

    def process(batch: DataFrame, batch_id: int) -> None:
        nonlocal total
        new = batch.collect()
        wanted = [file for file in new if not is_excluded(file.path, settings.exclude)]
        if len(wanted) < len(new):
            progress(f"micro-batch {batch_id}: {len(new) - len(wanted)} files left out by ingest.exclude")
        # Held as a whole: what a micro-batch found in the tables must still be so when it writes.
        with lake.locks.tables(*(table.name for table in INGEST_TABLES)):
            account = (
                _MicroBatch(lake, checkpoint, settings, batch_id, wanted, progress).write() if wanted else Account()
            )
        total = total + account

    run_stream(files, checkpoint, process, trigger=trigger)
    with lake.locks.reader():
        changed = _not_read_again(lake, pattern)
    return replace(total, rewritten=tuple(path for path in changed if not is_excluded(path, settings.exclude)))


def is_excluded(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file, by its name or its path, is one of `ingest.exclude`."""
    path = path.removeprefix("file:")
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (path, path.rsplit("/", 1)[-1]))


def create_tables(lake: Lake, properties: Mapping[str, str] | None = None) -> None:
    """The tables that ingestion writes, where they are missing; the properties go to `events`."""
    lake.create(EVENTS, properties={APPLICATION: new_application(), **(properties or {})})
    lake.create(REJECTED_EVENTS, INGESTED_FILES, PRODUCTS)


def _checkpoint(lake: Lake, progress: Progress) -> Checkpoint:
    try:
        return open_checkpoint(lake, "ingest", EVENTS, way_out="reading all files again")
    except CheckpointError as error:
        # Unlike counts of pairs, events know their repeats: all files may safely be read once more.
        progress(f"{error}; what was read before is dropped as a repeat")
        lake.set_properties(EVENTS, {APPLICATION: new_application()})
        return open_checkpoint(lake, "ingest", EVENTS, way_out="")


def _source_pattern(lake: Lake, sources: list[str]) -> str:
    if not sources:
        raise UsageError("no source: name folders or files, or set ingest.source in the settings")
    roots = []
    for source in sources:
        files = FileSystem(lake.spark, source)
        if not files.exists():
            raise UsageError(f"{source}: no such file or folder")
        if files.is_local and files.is_folder() and not lake.files.is_local:
            raise UsageError(f"{source} is a local folder, the lake is not: the workers could not read it")
        roots.append(files.path().toUri().getPath() if files.is_local else files.root)
    if len(roots) == 1:
        return escape_glob(roots[0])
    if not all(root.startswith("/") for root in roots):
        raise UsageError("several sources must be on the local file system; name their common folder instead")
    # Hadoop does not read an escaped brace within braces: there `?` stands for it.
    parts = [re.sub(r"[{}]", "?", root.lstrip("/")) for root in roots]
    return "file:///{" + ",".join(re.sub(r"([\[\]*\\,])", r"\\\1", part) for part in parts) + "}"


def _not_read_again(lake: Lake, pattern: str) -> tuple[str, ...]:
    """Files that changed after they had been read, or were empty then: Spark reads no file twice under one name."""
    present = (
        lake.spark.read.format("binaryFile")
        .option("recursiveFileLookup", "true")
        .load(pattern)
        .select(F.col("path"), F.col("modificationTime").alias("now_modified"), F.col("length").alias("now_bytes"))
    )
    known = (
        lake.read(INGESTED_FILES)
        .groupBy(_decoded(F.col("source")).alias("path"))
        .agg(F.max("modified_at").alias("modified_at"), F.max_by("bytes", "ingested_at").alias("bytes"))
    )
    changed = (F.col("now_bytes") != F.col("bytes")) | (F.col("now_modified") > F.col("modified_at"))
    was_empty = F.col("bytes").isNull() & (F.col("now_bytes") > 0)
    rows = (
        present.join(known, on="path", how="left").where(changed | was_empty).select("path").orderBy("path").collect()
    )
    return tuple(row.path.removeprefix("file:") for row in rows)


def _decoded(uri: Column) -> Column:
    return F.url_decode(F.replace(uri, F.lit("+"), F.lit("%2B")))


def _refusals(lake: Lake) -> Refusals | None:
    """Who is refused; None where nobody is."""
    if not lake.exists(REFUSED_USERS):
        return None
    return Refusals(lake.properties(REFUSED_USERS)[SALT], lake.read(REFUSED_USERS, lake.version(REFUSED_USERS)))


class _MicroBatch:
    """One micro-batch of files on its way into the tables."""

    def __init__(
        self,
        lake: Lake,
        checkpoint: Checkpoint,
        settings: IngestSettings,
        batch_id: int,
        files: list[Row],
        progress: Progress,
    ) -> None:
        self.lake = lake
        self.spark = lake.spark
        self.application = checkpoint.application
        self.settings = settings
        self.batch_id = batch_id
        self.name = f"{checkpoint.application}:{batch_id}"
        self.progress = progress
        self.files = {self._uri(row.path): row for row in files}
        self.ingested_at: datetime = files[0].ingested_at
        self.refused: dict[str, str] = {}

    def write(self) -> Account:
        groups = self._groups()
        while True:
            inspected = self._inspect(groups)
            try:
                lines = self._count_lines(inspected)
                break
            except Exception as error:
                inspected.unpersist()
                # One file cannot be read (a cut .gz, say). Find it, refuse it, and read the rest.
                if not self._refuse_unreadable(groups, error):
                    raise
        account = self._write(inspected, lines)
        inspected.unpersist()
        return account

    def _groups(self) -> list[FileGroup]:
        groups: dict[Layout, FileGroup] = {}
        for uri, file in self.files.items():
            try:
                layout = layout_of(self.spark, file.path, header=self.settings.header)
                groups.setdefault(layout, FileGroup(layout)).paths.append(file.path)
            except UnreadableFileError as error:
                self.refused[uri] = str(error)
        return list(groups.values())

    def _inspect(self, groups: list[FileGroup]) -> DataFrame:
        """Every line of the readable files, typed, with its reasons; kept, since several steps need it."""
        readable = [read_group(self.spark, group) for group in groups if group.paths]
        if not readable:
            texts = ", ".join(f"{name}: string" for name in FIELDS)
            schema = f"source: string, raw: string, is_header: boolean, {texts}, flaws: array<string>"
            readable = [literal_rows(self.spark, [], schema)]
        fields = reduce(DataFrame.unionByName, readable).withColumn("ingested_at", F.lit(self.ingested_at))
        validated = validate(fields, earliest=self.settings.earliest, cut=self.lake.cut())
        is_rejected = F.size("reasons") > 0
        inspected = validated.select(
            "source",
            "is_header",
            "reasons",
            *FIELDS,
            "event_date",
            "event_id",
            F.when(is_rejected, F.col("raw")).alias("raw"),
        )
        refusals = _refusals(self.lake)
        if refusals is None:
            inspected = inspected.withColumn("mark", F.lit(None).cast("string"))
        else:
            inspected = refuse(inspected, refusals)
        return inspected.persist(StorageLevel.MEMORY_AND_DISK)

    def _count_lines(self, inspected: DataFrame) -> list[Row]:
        """Per file: its lines, header lines, valid lines, and the dates of its valid events."""
        valid = F.size("reasons") == 0
        return (
            inspected.groupBy("source")
            .agg(
                F.count("*").alias("lines"),
                F.count_if("is_header").alias("headers"),
                F.count_if(valid & ~F.col("is_header")).alias("valid"),
                F.collect_set(F.when(valid, F.col("event_date"))).alias("dates"),
            )
            .collect()
        )

    def _refuse_unreadable(self, groups: list[FileGroup], error: Exception) -> bool:
        """Take the files that fail when read alone out of their groups; False where none does."""
        found = False
        for group in groups:
            for path in list(group.paths):
                try:
                    read_group(self.spark, FileGroup(group.layout, [path])).agg(F.count("raw")).collect()
                except Exception as alone:
                    group.paths.remove(path)
                    self.refused[self._uri(path)] = f"cannot be read: {reason_of(alone)}"
                    found = True
        return found

    def _write(self, inspected: DataFrame, lines: list[Row]) -> Account:
        dates = sorted({date for row in lines for date in row.dates})
        note = {"job": "ingest"}
        self._append_events(inspected, dates, note)
        self._append_rejected(inspected, lines, note)
        events = self._written(EVENTS, dates)
        rejected = self._written(REJECTED_EVENTS, None)
        accounts = self._accounts(lines, events, rejected)
        self._update_products(inspected, dates, note)
        self._append_files(accounts, note)
        total = sum(accounts.values(), Account())
        self.progress(
            f"micro-batch {self.batch_id}: {total.files} files, {total.lines:,} lines = {total.events:,} events"
            f" + {total.repeats:,} repeats + {total.rejected:,} rejected"
        )
        return total

    def _append_events(self, inspected: DataFrame, dates: list[date], note: dict[str, str]) -> None:
        valid = inspected.where((F.size("reasons") == 0) & ~F.col("is_header")).dropDuplicates(["event_id"])
        known = (
            self.lake.read(EVENTS)
            .where(F.col("event_date").isin(dates) & (F.col("ingest_batch") != self.name))
            .select("event_id")
        )
        self._append(EVENTS, valid.join(known, on="event_id", how="left_anti"), note)

    def _append_rejected(self, inspected: DataFrame, lines: list[Row], note: dict[str, str]) -> None:
        not_utf8 = ~F.is_valid_utf8("raw")
        raw_bytes = F.col("raw").cast("binary")
        bad_lines = inspected.where((F.size("reasons") > 0) & ~F.col("is_header")).select(
            F.substring(F.coalesce("mark", F.sha2(raw_bytes, 256)), 1, 32).alias("rejected_id"),
            F.make_valid_utf8("raw").alias("raw"),
            F.when(not_utf8, raw_bytes).alias("raw_bytes"),
            "reasons",
            "source",
        )
        others = [{"source": uri, "reasons": [reason]} for uri, reason in self.refused.items()]
        others += [{"source": row.source, "reasons": ["header line repeated"]} for row in lines if row.headers > 1]
        if others or any(row.valid < row.lines - row.headers for row in lines):
            extra = literal_rows(self.spark, others, "source: string, reasons: array<string>").select(
                F.substring(F.sha2(F.concat_ws("|", "source", F.col("reasons")[0]), 256), 1, 32).alias("rejected_id"),
                F.lit(None).cast("string").alias("raw"),
                F.lit(None).cast("binary").alias("raw_bytes"),
                "reasons",
                "source",
            )
            known = self.lake.read(REJECTED_EVENTS).where(F.col("ingest_batch") != self.name).select("rejected_id")
            rows = bad_lines.unionByName(extra).dropDuplicates(["rejected_id"])
            self._append(REJECTED_EVENTS, rows.join(known, on="rejected_id", how="left_anti"), note)

    def _append(self, table: Table, rows: DataFrame, note: dict[str, str]) -> None:
        stamped = rows.withColumns({"ingested_at": F.lit(self.ingested_at), "ingest_batch": F.lit(self.name)})
        self.lake.append(table, stamped, application=self.application, batch_id=self.batch_id, note=note)

    def _written(self, table: Table, dates: list[date] | None) -> dict[str, int]:
        """Rows that this micro-batch has in a table, by file: read back, so that a replay counts the same."""
        rows = self.lake.read(table).where(F.col("ingest_batch") == self.name)
        if dates is not None:
            rows = rows.where(F.col("event_date").isin(dates))
        return {row.source: row["count"] for row in rows.groupBy("source").count().collect()}

    def _accounts(self, lines: list[Row], events: dict[str, int], rejected: dict[str, int]) -> dict[str, Account]:
        accounts = {uri: Account(files=1) for uri in self.files}
        for uri in self.refused:
            new = rejected.get(uri, 0)
            accounts[uri] = Account(1, 1, 0, 1 - new, new, unreadable=(f"{self.files[uri].path}: {self.refused[uri]}",))
        for row in lines:
            count = row.lines - min(row.headers, 1)
            new, bad = events.get(row.source, 0), rejected.get(row.source, 0)
            accounts[row.source] = Account(1, count, new, (row.valid - new) + (count - row.valid - bad), bad)
        return accounts

    def _update_products(self, inspected: DataFrame, dates: list[date], note: dict[str, str]) -> None:
        if dates:
            valid = inspected.where((F.size("reasons") == 0) & ~F.col("is_header"))
            products = newest_products(self.lake.read(PRODUCTS), product_attributes(valid))
            self.lake.overwrite(PRODUCTS, products, note=note)

    def _append_files(self, accounts: dict[str, Account], note: dict[str, str]) -> None:
        rows = [
            {
                "source": uri,
                "modified_at": self.files[uri].modificationTime.astimezone(UTC).isoformat(),
                "bytes": self.files[uri].length,
                "lines": account.lines,
                "events": account.events,
                "repeats": account.repeats,
                "rejected": account.rejected,
            }
            for uri, account in accounts.items()
        ]
        counts = ", ".join(f"{name}: bigint" for name in ("bytes", "lines", "events", "repeats", "rejected"))
        schema = f"source: string, modified_at: timestamp, {counts}"
        self._append(INGESTED_FILES, literal_rows(self.spark, rows, schema), note)

    def _uri(self, path: str) -> str:
        return str(self.spark._jvm.org.apache.hadoop.fs.Path(path).toUri().toString())  # type: ignore[union-attr]
