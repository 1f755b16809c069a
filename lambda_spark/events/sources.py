"""Event files as rows of raw fields, by format. Reading is Spark's; what a line lacks is named, never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import LambdaSparkError
from lambda_spark.events.validation import FIELDS, MAX_LINE_LENGTH, REQUIRED
from lambda_spark.operations.files import escape_glob

FORMATS = {"csv": "csv", "json": "json", "jsonl": "json", "ndjson": "json", "parquet": "parquet"}
MAX_FIRST_LINE_BYTES = 16 * 2**20

_BYTE_ORDER_MARK = "\ufeff"


class UnreadableFileError(LambdaSparkError):
    """A whole file that cannot be read as events; the text is its reason for rejection."""


@dataclass(frozen=True)
class Layout:
    """What files must share to be read in one go: the format and the columns (for CSV also the header line)."""

    format: str
    columns: tuple[str, ...]
    header: str | None = None


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
        return Layout(kind, _required(_parquet_columns(spark, path)))
    line = _first_line(spark, path)
    if kind == "json":
        return Layout(kind, FIELDS)
    if not header:
        return Layout(kind, FIELDS)
    columns = _required(tuple(_csv_fields(line)))
    return Layout(kind, columns, header=line)


def read_group(spark: SparkSession, group: FileGroup) -> DataFrame:
    """All lines of a group of files as `RAW_COLUMNS`."""
    paths = [escape_glob(path) for path in group.paths]
    if group.layout.format == "parquet":
        return _parquet_fields(spark.read.parquet(*paths))
    lines = spark.read.text(paths).select("value", F.col("_metadata.file_path").alias("source"))
    header = group.layout.header
    is_header = F.lit(False) if header is None else F.col("value").isin(header, _BYTE_ORDER_MARK + header)
    lines = lines.select("source", F.col("value").alias("raw"), is_header.alias("is_header"))
    return _csv_lines(lines, group.layout.columns) if group.layout.format == "csv" else json_lines(lines)


def _csv_lines(lines: DataFrame, columns: Sequence[str]) -> DataFrame:
    schema = ", ".join([*(f"c{at} string" for at in range(len(columns))), "_corrupt string"])
    options = {"columnNameOfCorruptRecord": "_corrupt", "mode": "PERMISSIVE"}
    usable = F.when(F.col("raw_flaw").isNull(), F.col("raw"))
    separators = F.length(F.regexp_replace(F.regexp_replace("raw", '"[^"]*"', ""), "[^,]", ""))
    wrong_count = (
        F.when(separators < len(columns) - 1, "too few fields")
        .when(separators > len(columns) - 1, "too many fields")
        .otherwise("quotes are not balanced")
    )
    flaw = F.coalesce("raw_flaw", F.when(F.col("event._corrupt").isNotNull(), wrong_count))
    at = {name: F.col(f"event.c{position}") for position, name in enumerate(columns)}
    return (
        lines.withColumn("raw_flaw", _raw_flaw())
        .withColumn("event", F.from_csv(usable, schema, options))
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
    flaw = F.coalesce("raw_flaw", F.when(F.col("event._corrupt").isNotNull(), "not a JSON object of known form"))
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

    def text(name: str) -> Column:
        return F.col(f"`{names[name]}`").cast("string") if name in names else F.lit(None).cast("string")

    return rows.select(
        F.col("_metadata.file_path").alias("source"),
        F.to_json(F.struct(*(F.col(f"`{name}`") for name in rows.columns))).alias("raw"),
        F.lit(False).alias("is_header"),
        *(text(name).alias(name) for name in FIELDS),
        F.lit(None).cast("string").alias("flaw"),
    )


def _raw_flaw() -> Column:
    """What makes a line unfit for a parser; null where nothing does."""
    return (
        F.when(~F.is_valid_utf8("raw"), "not valid UTF-8")
        .when(F.length("raw") > MAX_LINE_LENGTH, f"line longer than {MAX_LINE_LENGTH} characters")
        .when(F.contains("raw", F.lit("\0")), "NUL character in the line")
        .when(F.trim("raw") == "", "empty line")
    )


def _required(columns: tuple[str, ...]) -> tuple[str, ...]:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise UnreadableFileError(
            f"no column {', '.join(missing)} among '{', '.join(columns)[:200]}'; "
            "a CSV file without a header line is read with --set ingest.header=false"
        )
    twice = sorted({name for name in columns if name in FIELDS and columns.count(name) > 1})
    if twice:
        raise UnreadableFileError(f"column {', '.join(twice)} stands twice in the header")
    return columns


def _csv_fields(line: str) -> list[str]:
    return [name.strip().strip('"').strip().lower() for name in line.removeprefix(_BYTE_ORDER_MARK).split(",")]


def _parquet_columns(spark: SparkSession, path: str) -> tuple[str, ...]:
    try:
        return tuple(name.lower() for name in spark.read.parquet(escape_glob(path)).columns)
    except Exception as error:
        raise UnreadableFileError("not a Parquet file") from error


def _first_line(spark: SparkSession, path: str) -> str:
    """The first line of a text file, plain or compressed, without holding more than its bound in memory."""
    jvm: Any = spark._jvm
    hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
    configuration = spark._jsc.hadoopConfiguration()
    codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(configuration).getCodec(hadoop_path)
    line = jvm.org.apache.hadoop.io.Text()
    try:
        stream = hadoop_path.getFileSystem(configuration).open(hadoop_path)
        try:
            if codec is not None:
                stream = codec.createInputStream(stream)
            reader = jvm.org.apache.hadoop.util.LineReader(stream, configuration)
            taken = reader.readLine(line, MAX_LINE_LENGTH * 4, MAX_FIRST_LINE_BYTES)
        finally:
            stream.close()
    except Exception as error:
        raise UnreadableFileError(f"cannot be read: {reason_of(error)}") from error
    if taken == 0:
        raise UnreadableFileError("the file is empty")
    if taken >= MAX_FIRST_LINE_BYTES:
        raise UnreadableFileError(f"no line end in the first {MAX_FIRST_LINE_BYTES // 2**20} MB")
    return str(line.toString())


def reason_of(error: Exception) -> str:
    """The innermost cause of a failure in the JVM, in one line."""
    java: Any = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    if java is None:
        return " ".join(str(error).split())[:300]
    name = java.getClass().getSimpleName()
    return f"{name}: {' '.join(str(java.getMessage() or '').split())[:300]}"
