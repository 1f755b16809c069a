"""Reading of event files (CSV, JSON lines, Parquet) into rows of raw fields.

Spark reads the files. A faulty line becomes a row too, and the column `flaw` of that row names the fault.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from lambda_spark.errors import LambdaSparkError, is_transient, root_cause
from lambda_spark.event_format import FIELDS, REQUIRED
from lambda_spark.ingestion.validation import MAX_LINE_LENGTH
from lambda_spark.storage.file_system import escape_glob

FORMATS = {"csv": "csv", "json": "json", "jsonl": "json", "ndjson": "json", "parquet": "parquet"}
MAX_COLUMNS = 1000
BLOCK_BYTES = 16 * 2**20
"""Number of bytes per block of a text file. A file with a block without a line end is rejected.

So no line is longer than two blocks, and no line can fill the memory.
"""

_BYTE_ORDER_MARK = "\ufeff"


class UnreadableFileError(LambdaSparkError):
    """Error for a file that cannot be read at all. The error text is stored as the reason for rejecting the file."""


@dataclass(frozen=True)
class Layout:
    """Format and columns of a file. Files with equal layouts can be read together.

    The layout of a CSV file also holds its header line. The layout of a Parquet file also holds its column types.
    """

    format: str
    columns: tuple[str, ...]
    header: str | None = None
    types: str | None = None
    """Schema of a Parquet file, as JSON."""


@dataclass
class FileGroup:
    """Paths of files with the same layout (format and columns)."""

    layout: Layout
    paths: list[str] = field(default_factory=list)


def layout_of(spark: SparkSession, path: str, *, header: bool) -> Layout:
    """Find the layout (format and columns) of a file.

    Args:
        spark: The session.
        path: Path of the file. The file name extension says which format the file has.
        header: Whether a CSV file begins with a header line.

    Returns:
        The layout of the file.

    Raises:
        UnreadableFileError: The file can never be read. The error text says why.
        LambdaSparkError: Reading failed for a temporary reason, such as a lost connection.
    """
    name = path.rsplit("/", 1)[-1].lower()
    name = name.removesuffix(".gz")
    kind = FORMATS.get(name.rsplit(".", 1)[-1])
    if kind is None:
        raise UnreadableFileError(
            f"unknown kind of file: the known kinds are .{', .'.join(FORMATS)}, each also with .gz"
        )
    if kind == "parquet":
        schema = _parquet_schema(spark, path)
        columns = _checked_columns(tuple(column.lower() for column in schema.names))
        return Layout(kind, columns, types=schema.json())
    line = _first_line(spark, path)
    if kind == "json":
        return Layout(kind, FIELDS)
    if not header:
        return Layout(kind, FIELDS)
    if len(line) > MAX_LINE_LENGTH:
        raise UnreadableFileError(f"the header line is longer than {MAX_LINE_LENGTH} characters")
    columns = _checked_columns(tuple(_header_columns(line)))
    # Remove the byte order mark from the header, because Spark also removes the mark from the first line of a file.
    return Layout(kind, columns, header=line.removeprefix(_BYTE_ORDER_MARK))


def read_group(spark: SparkSession, group: FileGroup) -> DataFrame:
    """Read all lines of a group of files.

    Args:
        spark: The session.
        group: Paths of files with the same layout.

    Returns:
        One row per line, or per row of a Parquet file, with `RAW_COLUMNS`.
    """
    paths = [escape_glob(path) for path in group.paths]
    if group.layout.format == "parquet":
        # Take the schema from the layout, because reading the schema from a file would take another Spark job.
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
    # Split lines without quotes at their commas, because Spark's CSV parser takes twice as long (measured). Almost all
    # lines have no quotes.
    has_quote = F.contains("raw", F.lit('"'))
    split_fields, parsed = (
        F.when(~has_quote, F.split(usable, ",", -1)),
        F.from_csv(F.when(has_quote, usable), schema, options),
    )
    separators = F.length(F.regexp_replace(F.regexp_replace("raw", '"[^"]*"', ""), "[^,]", ""))
    wrong_count = (
        F.when(separators < len(columns) - 1, "too few fields")
        .when(separators > len(columns) - 1, "too many fields")
        .otherwise("quotes are not balanced")
    )
    is_unfit = F.col("parsed._corrupt").isNotNull() | (
        F.col("split_fields").isNotNull() & (F.size("split_fields") != len(columns))
    )
    flaw = F.coalesce("raw_flaw", F.when(is_unfit, wrong_count))
    fields = F.coalesce("split_fields", F.array(*(F.col(f"parsed.c{at}") for at in range(len(columns)))))
    at = {name: F.get("fields", F.lit(position)) for position, name in enumerate(columns)}
    return (
        lines.withColumn("raw_flaw", _raw_flaw())
        .withColumns({"split_fields": split_fields, "parsed": parsed})
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
    """Parse lines of text that should each hold one event as a JSON object.

    Args:
        lines: Lines with the columns `source`, `raw` and `is_header`.
        *others: Names of further columns to keep.

    Returns:
        One row per line, with `RAW_COLUMNS` and the further columns.
    """
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
    """Return the fault of a raw line that must not be parsed, or null if the line may be parsed."""
    return (
        F.when(~F.is_valid_utf8("raw"), "not valid UTF-8")
        .when(_is_too_long(F.col("raw")), f"line longer than {MAX_LINE_LENGTH} characters")
        .when(F.contains("raw", F.lit("\0")), "NUL character in the line")
        .when(F.trim("raw") == "", "empty line")
    )


def _is_too_long(text: Column) -> Column:
    # Compare the number of bytes first. Spark knows the number of bytes of a text, but has to count its characters.
    return (F.octet_length(text) > MAX_LINE_LENGTH) & (F.length(text) > MAX_LINE_LENGTH)


def _field_flaw(fields: Sequence[Column]) -> Column:
    """Return the fault of the parsed fields of a line, or null if the fields have none.

    A check of the raw line misses some faults. Examples are a NUL character in a JSON escape or in a Parquet value.
    """
    joined = F.concat_ws(",", *fields)
    return (
        F.when(~F.is_valid_utf8(joined), "not valid UTF-8")
        .when(_is_too_long(joined), f"line longer than {MAX_LINE_LENGTH} characters")
        .when(F.contains(joined, F.lit("\0")), "NUL character in the line")
    )


def _checked_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        # Quote only column names that consist of letters. If the file has no header line, these names are the values of
        # an event, and the rejection reason must not reveal the event's user.
        named = ", ".join(name for name in columns if name.replace("_", "").isalpha())[:200]
        raise UnreadableFileError(
            f"no column {', '.join(missing)} among its {len(columns)} columns{f' ({named})' if named else ''}. "
            "If the file is CSV without a header line, add --set ingest.header=false"
        )
    if len(columns) > MAX_COLUMNS:
        raise UnreadableFileError(f"the file has {len(columns):,} columns, but at most {MAX_COLUMNS:,} can be read")
    repeated = sorted({name for name in columns if name in FIELDS and columns.count(name) > 1})
    if repeated:
        raise UnreadableFileError(f"column {', '.join(repeated)} appears more than once")
    return columns


def _header_columns(line: str) -> list[str]:
    return [name.strip().strip('"').strip().lower() for name in line.removeprefix(_BYTE_ORDER_MARK).split(",")]


def _parquet_schema(spark: SparkSession, path: str) -> StructType:
    try:
        return spark.read.parquet(escape_glob(path)).schema
    except Exception as error:
        raise unreadable(path, error, " as Parquet") from error


def _first_line(spark: SparkSession, path: str) -> str:
    """Return the first line of a text file, plain or compressed.

    Raises:
        UnreadableFileError: The file is empty, has a block without a line end, or can never be read.
        LambdaSparkError: Reading failed for a temporary reason.
    """
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
            bytes_read = _read_line(jvm, stream, line, MAX_LINE_LENGTH * 4)
            has_line_ends = bytes_read < BLOCK_BYTES and _has_line_ends(jvm, stream, length if codec is None else None)
        finally:
            stream.close()
    except Exception as error:
        raise unreadable(path, error) from error
    if bytes_read == 0:
        raise UnreadableFileError("the file is empty")
    if not has_line_ends:
        raise UnreadableFileError(
            f"no line end in {BLOCK_BYTES // 2**20} MB of the file, so it cannot be read line by line"
        )
    return str(line.toString())


def _has_line_ends(jvm: Any, stream: Any, length: int | None) -> bool:
    """Whether each block of a file has a line end, not counting the first block. A block has `BLOCK_BYTES` bytes.

    A plain file is read only from the start of each block to the next line end. A compressed file is read to its end,
    because its uncompressed length is unknown. `length` is None for a compressed file.
    """
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
    """Read the next line of a stream, at most `BLOCK_BYTES` bytes, and return the number of bytes read."""
    return int(jvm.org.apache.hadoop.util.LineReader(stream, 65_536).readLine(line, most_bytes_kept, BLOCK_BYTES))


def unreadable(path: str, error: Exception, how: str = "") -> LambdaSparkError:
    """Return the error to raise after a file could not be read.

    Args:
        path: Path of the file.
        error: The exception that reading the file raised.
        how: Words for the error text after "cannot be read", such as " as Parquet".

    Returns:
        An UnreadableFileError if the file is at fault. Another LambdaSparkError if a later attempt may succeed.
    """
    reason = root_cause(error)
    if is_transient(reason):
        return LambdaSparkError(
            f"{path} cannot be read now: {reason}. The failure may pass, so the file was not rejected: start again"
        )
    return UnreadableFileError(f"cannot be read{how}: {reason}")
