"""Event files as rows of raw fields, by format. Reading is Spark's; what a line lacks is named, never dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from lambda_spark.errors import LambdaSparkError, may_pass, reason_of
from lambda_spark.event_format import FIELDS, REQUIRED
from lambda_spark.ingestion.validation import MAX_LINE_LENGTH
from lambda_spark.storage.file_system import escape_glob

FORMATS = {"csv": "csv", "json": "json", "jsonl": "json", "ndjson": "json", "parquet": "parquet"}
MAX_COLUMNS = 1000
BLOCK_BYTES = 16 * 2**20
"""A text file has a line end in each block of so many bytes: no line is then longer than two, and none fills the
memory."""

_BYTE_ORDER_MARK = "\ufeff"


class UnreadableFileError(LambdaSparkError):
    """A whole file that cannot be read as events; the text is its reason for rejection."""


@dataclass(frozen=True)
class Layout:
    """What files must share to be read in one go: the format and the columns, for CSV also the header line, for Parquet
    the types."""

    format: str
    columns: tuple[str, ...]
    header: str | None = None
    types: str | None = None


@dataclass
class FileGroup:
    """Files of one layout, by their paths."""

    layout: Layout
    paths: list[str] = field(default_factory=list)


def layout_of(spark: SparkSession, path: str, *, header: bool) -> Layout:
    """How a file is to be read. Raises UnreadableFileError with the reason where it cannot be."""
    name = path.rsplit("/", 1)[-1].lower()
    name = name.removesuffix(".gz")
    kind = FORMATS.get(name.rsplit(".", 1)[-1])
    if kind is None:
        raise UnreadableFileError(f"unknown kind of file; known are .{', .'.join(FORMATS)}, each also with .gz")
    if kind == "parquet":
        schema = _parquet_schema(spark, path)
        columns = _required(tuple(column.lower() for column in schema.names))
        return Layout(kind, columns, types=schema.json())
    line = _first_line(spark, path)
    if kind == "json":
        return Layout(kind, FIELDS)
    if not header:
        return Layout(kind, FIELDS)
    if len(line) > MAX_LINE_LENGTH:
        raise UnreadableFileError(f"the header line is longer than {MAX_LINE_LENGTH} characters")
    columns = _required(tuple(_csv_fields(line)))
    # Spark takes the mark off a file's first line where it has one.
    return Layout(kind, columns, header=line.removeprefix(_BYTE_ORDER_MARK))


def read_group(spark: SparkSession, group: FileGroup) -> DataFrame:
    """All lines of a group of files as `RAW_COLUMNS`."""
    paths = [escape_glob(path) for path in group.paths]
    if group.layout.format == "parquet":
        # As it was read for the layout: to ask a file once more for it takes a job.
        schema = StructType.fromJson(json.loads(group.layout.types or ""))
        return _parquet_fields(spark.read.schema(schema).parquet(*paths))
    lines = spark.read.text(paths).select("value", F.col("_metadata.file_path").alias("source"))
    header = group.layout.header
    is_header = F.lit(False) if header is None else F.col("value").isin(header, _BYTE_ORDER_MARK + header)
    lines = lines.select("source", F.col("value").alias("raw"), is_header.alias("is_header"))
    return _csv_lines(lines, group.layout.columns) if group.layout.format == "csv" else json_lines(lines)


def _csv_lines(lines: DataFrame, columns: Sequence[str]) -> DataFrame:
    schema = ", ".join([*(f"c{at} string" for at in range(len(columns))), "_corrupt string"])
    options = {"columnNameOfCorruptRecord": "_corrupt", "mode": "PERMISSIVE"}
    usable = F.when(F.col("raw_flaw").isNull(), F.col("raw"))
    # Of almost all lines, which have no quote, the fields are what lies between commas: to parse them takes twice as
    # long (measured).
    has_quote = F.contains("raw", F.lit('"'))
    cut, parsed = F.when(~has_quote, F.split(usable, ",", -1)), F.from_csv(F.when(has_quote, usable), schema, options)
    separators = F.length(F.regexp_replace(F.regexp_replace("raw", '"[^"]*"', ""), "[^,]", ""))
    wrong_count = (
        F.when(separators < len(columns) - 1, "too few fields")
        .when(separators > len(columns) - 1, "too many fields")
        .otherwise("quotes are not balanced")
    )
    is_unfit = F.col("parsed._corrupt").isNotNull() | (F.col("cut").isNotNull() & (F.size("cut") != len(columns)))
    flaw = F.coalesce("raw_flaw", F.when(is_unfit, wrong_count))
    fields = F.coalesce("cut", F.array(*(F.col(f"parsed.c{at}") for at in range(len(columns)))))
    at = {name: F.get("fields", F.lit(position)) for position, name in enumerate(columns)}
    return (
        lines.withColumn("raw_flaw", _raw_flaw())
        .withColumns({"cut": cut, "parsed": parsed})
        .withColumn("fields", fields)
        .select(
            "source",
            "raw",
            "is_header",
            *(at.get(name, F.lit(None).cast("string")).alias(name) for name in FIELDS),
            flaw.alias("flaw"),
        )
    )


def json_lines(lines: DataFrame, *others: str) -> DataFrame:
    """Lines (`source`, `raw`, `is_header`) that should be a JSON object each, as `RAW_COLUMNS` and the others named."""
    schema = ", ".join(f"{name} string" for name in (*FIELDS, "_corrupt"))
    usable = F.when(F.col("raw_flaw").isNull(), F.col("raw"))
    flaw = F.coalesce(
        "raw_flaw",
        F.when(F.col("event._corrupt").isNotNull(), "not a JSON object of known form"),
        _field_flaw([F.col(f"event.{name}") for name in FIELDS]),
    )
    event = F.from_json(usable, schema, {"columnNameOfCorruptRecord": "_corrupt", "mode": "PERMISSIVE"})
    return (
        lines.withColumn("raw_flaw", _raw_flaw())
        .withColumn("event", event)
        .select(
            "source",
            "raw",
            "is_header",
            *others,
            *(F.col(f"event.{name}").alias(name) for name in FIELDS),
            flaw.alias("flaw"),
        )
    )


def _parquet_fields(rows: DataFrame) -> DataFrame:
    names = {name.lower(): name for name in rows.columns}

    def column(name: str) -> Column:
        quoted = name.replace("`", "``")
        return F.col(f"`{quoted}`")

    def text(name: str) -> Column:
        return column(names[name]).cast("string") if name in names else F.lit(None).cast("string")

    return rows.select(
        rows.metadataColumn("_metadata")["file_path"].alias("source"),
        F.to_json(F.struct(*map(column, rows.columns))).alias("raw"),
        F.lit(False).alias("is_header"),
        *(text(name).alias(name) for name in FIELDS),
        _field_flaw([text(name) for name in FIELDS]).alias("flaw"),
    )


def _raw_flaw() -> Column:
    """What makes a line unfit for a parser; null where nothing does."""
    return (
        F.when(~F.is_valid_utf8("raw"), "not valid UTF-8")
        .when(_is_too_long(F.col("raw")), f"line longer than {MAX_LINE_LENGTH} characters")
        .when(F.contains("raw", F.lit("\0")), "NUL character in the line")
        .when(F.trim("raw") == "", "empty line")
    )


def _is_too_long(text: Column) -> Column:
    # The bytes are known, the characters have to be counted.
    return (F.octet_length(text) > MAX_LINE_LENGTH) & (F.length(text) > MAX_LINE_LENGTH)


def _field_flaw(fields: Sequence[Column]) -> Column:
    """What makes fields unfit for an event where the line itself does not show it, as an escape in JSON or a value in
    Parquet does not; null where nothing does."""
    joined = F.concat_ws(",", *fields)
    return (
        F.when(~F.is_valid_utf8(joined), "not valid UTF-8")
        .when(_is_too_long(joined), f"line longer than {MAX_LINE_LENGTH} characters")
        .when(F.contains(joined, F.lit("\0")), "NUL character in the line")
    )


def _required(columns: tuple[str, ...]) -> tuple[str, ...]:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        # Where there is no header line an event stands here: whose it is has no place in a reason.
        named = ", ".join(name for name in columns if name.replace("_", "").isalpha())[:200]
        raise UnreadableFileError(
            f"no column {', '.join(missing)} among its {len(columns)}{f' ({named})' if named else ''}; "
            "a CSV file without a header line is read with --set ingest.header=false"
        )
    if len(columns) > MAX_COLUMNS:
        raise UnreadableFileError(f"{len(columns):,} columns; at most {MAX_COLUMNS:,} are read")
    twice = sorted({name for name in columns if name in FIELDS and columns.count(name) > 1})
    if twice:
        raise UnreadableFileError(f"column {', '.join(twice)} stands twice in the header")
    return columns


def _csv_fields(line: str) -> list[str]:
    return [name.strip().strip('"').strip().lower() for name in line.removeprefix(_BYTE_ORDER_MARK).split(",")]


def _parquet_schema(spark: SparkSession, path: str) -> StructType:
    try:
        return spark.read.parquet(escape_glob(path)).schema
    except Exception as error:
        raise unreadable(path, error, " as Parquet") from error


def _first_line(spark: SparkSession, path: str) -> str:
    """The first line of a text file, plain or compressed, after a look whether the file has line ends throughout."""
    jvm: Any = spark._jvm
    hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
    configuration = spark._jsc.hadoopConfiguration()
    codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(configuration).getCodec(hadoop_path)
    line = jvm.org.apache.hadoop.io.Text()
    try:
        files = hadoop_path.getFileSystem(configuration)
        length = files.getFileStatus(hadoop_path).getLen()
        stream = files.open(hadoop_path)
        try:
            if codec is not None:
                stream = codec.createInputStream(stream)
            taken = _read_line(jvm, stream, line, MAX_LINE_LENGTH * 4)
            has_line_ends = taken < BLOCK_BYTES and _has_line_ends(jvm, stream, length if codec is None else None)
        finally:
            stream.close()
    except Exception as error:
        raise unreadable(path, error) from error
    if taken == 0:
        raise UnreadableFileError("the file is empty")
    if not has_line_ends:
        raise UnreadableFileError(f"no line end in {BLOCK_BYTES // 2**20} MB")
    return str(line.toString())


def _has_line_ends(jvm: Any, stream: Any, length: int | None) -> bool:
    """Whether each block has a line end: of a plain file little but the blocks' beginnings is read, a compressed one
    (of unknown length) is gone through."""
    ignored = jvm.org.apache.hadoop.io.Text()
    start = BLOCK_BYTES
    while length is None or start < length:
        if length is not None:
            stream.seek(start)
        elif stream.skip(BLOCK_BYTES) < BLOCK_BYTES:
            return True
        if _read_line(jvm, stream, ignored, 1) >= BLOCK_BYTES:
            return False
        start += BLOCK_BYTES
    return True


def _read_line(jvm: Any, stream: Any, line: Any, most_bytes_kept: int) -> int:
    """Bytes of the line that begins where the stream is, counted to the end of a block at most."""
    return int(jvm.org.apache.hadoop.util.LineReader(stream, 65_536).readLine(line, most_bytes_kept, BLOCK_BYTES))


def unreadable(path: str, error: Exception, how: str = "") -> LambdaSparkError:
    """What became of reading a file: an UnreadableFileError for good, another where it may be read the next time."""
    reason = reason_of(error)
    if may_pass(reason):
        return LambdaSparkError(f"{path} cannot be read now: {reason}; nothing of it is refused: start again")
    return UnreadableFileError(f"cannot be read{how}: {reason}")
