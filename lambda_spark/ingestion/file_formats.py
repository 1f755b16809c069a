"""Reading of event files (CSV, JSON, Parquet) into rows of raw fields.

Spark reads the files. A faulty record is not dropped; the column `flaw` names its fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlparse

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from lambda_spark.errors import LambdaSparkError, UsageError, is_transient, root_cause
from lambda_spark.event_format import FIELDS
from lambda_spark.ingestion.field_mapping import INTERNAL, FieldMapping
from lambda_spark.ingestion.records import (
    MAX_LINE_LENGTH,
    csv_options,
    csv_records,
    header_columns,
    json_records,
    raw_rows,
)
from lambda_spark.storage.file_system import escape_glob

FORMATS = {
    "csv": "csv",
    "tsv": "csv",
    "txt": "csv",
    "dat": "csv",
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
    "parquet": "parquet",
}
"""The format of files by their extension."""
COMPRESSIONS = (".gz", ".bz2", ".zst")
UNKNOWN_KIND = "unknown kind of file"
MAX_COLUMNS = 1000
BLOCK_BYTES = 16 * 2**20
"""A text file must have a line end in each block of this many bytes.

No line is then longer than two blocks, so that no line can fill the memory.
"""

_BYTE_ORDER_MARK = "\ufeff"
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""Folder name of Spark and Hive for a partition column that is null."""


class UnreadableFileError(LambdaSparkError):
    """Error for a file that cannot be read at all. Its text becomes the reason for the file's rejection."""


@dataclass(frozen=True)
class Layout:
    """Properties that files must share to be read together.

    Files of one layout have the same format, columns and partition folders. CSV files also have the same delimiter and
    header line, and Parquet files the same types.
    """

    format: str
    columns: tuple[str, ...]
    header: str | None = None
    delimiter: str = ","
    types: str | None = None
    """Schema of a Parquet file, as JSON."""
    nanoseconds: tuple[str, ...] = ()
    """Columns of a Parquet file that are times in nanoseconds."""
    partitions: tuple[str, ...] = ()
    """Names of the columns that stand in the names of folders, like `event_type` of `event_type=view/`."""


@dataclass
class FileGroup:
    """Paths of files with the same layout (format and columns)."""

    layout: Layout
    paths: list[str] = field(default_factory=list)


def layout_of(spark: SparkSession, path: str, mapping: FieldMapping) -> Layout:
    """Find out how a file must be read.

    Args:
        spark: The session.
        path: Path of the file. If the description names no format, the file name extension says it.
        mapping: The columns that are needed.

    Returns:
        The layout. Files with equal layouts can be read together.

    Raises:
        UnreadableFileError: The file can never be read. The text says why.
        LambdaSparkError: Reading failed for a reason that may pass, such as a lost connection.
    """
    description = mapping.description
    if ":" in path.rsplit("/", 1)[-1]:
        raise UnreadableFileError("its name has a colon, which Hadoop cannot open; rename the file")
    extension = _extension(path)
    kind = description.format or FORMATS.get(extension) or _sniffed(spark, path, extension)
    partitions = _partition_names(path)
    if kind == "parquet":
        schema = _parquet_schema(spark, path)
        _check_columns(mapping, schema.names, partitions)
        nanoseconds = _nanosecond_columns(spark, path)
        return Layout(kind, tuple(schema.names), types=schema.json(), nanoseconds=nanoseconds, partitions=partitions)
    if kind == "json":
        if not description.multiline:
            _first_line(spark, path, description.encoding)
        return Layout(kind, (), partitions=partitions)
    delimiter = "\t" if extension == "tsv" and description.delimiter == "," else description.delimiter
    delimiter = delimiter.replace("\\t", "\t")
    if description.multiline:
        columns = tuple(spark.read.options(**csv_options(description, delimiter)).csv(escape_glob(path)).columns)
        columns = columns if description.header else description.columns or FIELDS
        _check_columns(mapping, columns, partitions)
        return Layout(kind, columns, delimiter=delimiter, partitions=partitions)
    line = _first_line(spark, path, description.encoding)
    if not description.header:
        columns = description.columns or FIELDS
        _check_columns(mapping, columns, partitions)
        return Layout(kind, columns, delimiter=delimiter, partitions=partitions)
    if len(line) > MAX_LINE_LENGTH:
        raise UnreadableFileError(f"the header line is longer than {MAX_LINE_LENGTH} characters")
    # Remove the byte order mark from the header, because Spark also removes the mark from the first line of a file.
    line = line.removeprefix(_BYTE_ORDER_MARK)
    columns = header_columns(line, delimiter, description.quote)
    try:
        _check_columns(mapping, columns, partitions)
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{error}. {_header_advice(line, columns, delimiter)}") from None
    return Layout(kind, columns, header=line, delimiter=delimiter, partitions=partitions)


def read_group(spark: SparkSession, group: FileGroup, mapping: FieldMapping) -> DataFrame:
    """Read all records of a group of files.

    Args:
        spark: The session.
        group: Paths of files with the same layout.
        mapping: Which of the files' columns is which field.

    Returns:
        One row per record (a line of CSV, a JSON value, an element of an exploded array, or a row of Parquet), with
        `RAW_COLUMNS`.
    """
    description, layout = mapping.description, group.layout
    paths = [escape_glob(path) for path in group.paths]
    if layout.format == "parquet":
        # Take the schema from the layout, because reading the schema from a file would take another Spark job.
        schema = StructType.fromJson(json.loads(layout.types or ""))
        records = _parquet_records(spark.read.schema(schema).parquet(*paths), layout, mapping)
    elif description.multiline:
        records = _multiline_records(spark, paths, layout, mapping)
    else:
        lines = spark.read.text(paths).select("value", F.col("_metadata.file_path").alias(f"{INTERNAL}source"))
        raw = F.col("value")
        if not _is_utf8(description.encoding):
            raw = F.decode(raw.cast("binary"), description.encoding)
        header = layout.header
        is_header = F.lit(False) if header is None else raw.isin(header, _BYTE_ORDER_MARK + header)
        lines = lines.select(f"{INTERNAL}source", raw.alias(f"{INTERNAL}raw"), is_header.alias(f"{INTERNAL}is_header"))
        if layout.format == "csv":
            columns = mapping.columns_in([*layout.columns, *layout.partitions])
            records = csv_records(lines, layout.columns, columns, description, layout.delimiter)
        else:
            # A line that is only a bracket belongs to an array over several lines. It is no record.
            records = json_records(lines.where(~F.trim(f"{INTERNAL}raw").isin("[", "]", "],")), mapping)
    records = _with_partitions(records, layout, mapping)
    return raw_rows(mapping.fields(records))


def _multiline_records(spark: SparkSession, paths: list[str], layout: Layout, mapping: FieldMapping) -> DataFrame:
    """Read records that span several lines, by Spark's own readers."""
    corrupt = f"{INTERNAL}corrupt"
    options: dict[str, bool | str] = {
        "multiLine": True,
        "columnNameOfCorruptRecord": corrupt,
        "mode": "PERMISSIVE",
        "encoding": mapping.description.encoding,
    }
    if layout.format == "json":
        schema = mapping.json_schema().add(corrupt, "string")
        rows = spark.read.schema(schema).options(**options).json(paths)
        bad = "not a JSON object of known form"
    else:
        schema = StructType()
        for number in range(len(layout.columns)):
            schema.add(f"c{number}", "string")
        described = csv_options(mapping.description, layout.delimiter)
        rows = spark.read.schema(schema.add(corrupt, "string")).options(**{**described, **options}).csv(paths)
        bad = "too few or too many fields, or quotes are not balanced"
    own = [name for name in rows.columns if name != corrupt]
    raw = F.coalesce(corrupt, F.to_json(F.struct(*(F.col(f"`{name}`") for name in own))))
    rows = rows.withColumns(
        {
            f"{INTERNAL}source": F.col("_metadata.file_path"),
            f"{INTERNAL}raw": raw,
            f"{INTERNAL}is_header": F.lit(False),
            f"{INTERNAL}flaw": F.when(F.col(corrupt).isNotNull(), F.lit(bad)),
        }
    ).drop(corrupt)
    if layout.format == "csv":
        needed = mapping.columns_in([*layout.columns, *layout.partitions])
        at = {name: position for position, name in enumerate(layout.columns)}
        internal = [name for name in rows.columns if name.startswith(INTERNAL)]
        named = [F.col(f"c{at[column]}").alias(name) for name, column in needed.items() if column in at]
        rows = rows.select(*internal, *named)
    return rows


def _parquet_records(rows: DataFrame, layout: Layout, mapping: FieldMapping) -> DataFrame:
    def column(name: str) -> Any:
        quoted = F.col("`" + name.replace("`", "``") + "`")
        return F.timestamp_micros(F.floor(quoted / 1000)) if name in layout.nanoseconds else quoted

    needed = mapping.columns_in([*layout.columns, *layout.partitions])
    return rows.select(
        rows.metadataColumn("_metadata")["file_path"].alias(f"{INTERNAL}source"),
        F.to_json(F.struct(*(column(name).alias(name) for name in rows.columns))).alias(f"{INTERNAL}raw"),
        F.lit(False).alias(f"{INTERNAL}is_header"),
        F.lit(None).cast("string").alias(f"{INTERNAL}flaw"),
        *(column(own).alias(name) for name, own in needed.items() if own in rows.columns),
    )


def _with_partitions(records: DataFrame, layout: Layout, mapping: FieldMapping) -> DataFrame:
    """Add the needed columns that stand in the names of a file's folders."""
    needed = {path[0] for path in mapping.referenced} | set(mapping.unmapped)
    for name in layout.partitions:
        if name in needed and name not in records.columns:
            pattern = f"/{re.escape(name)}=([^/]*)/"
            value = _decoded(F.regexp_extract(f"{INTERNAL}source", pattern, 1))
            # Decode the value twice: the file's URI encodes the folder's name, and the name encodes special characters.
            records = records.withColumn(name, F.when(value != _NO_PARTITION, F.coalesce(_decoded(value), value)))
    return records


def _decoded(text: Column) -> Column:
    """Decode %XX; null where such a code is malformed. A plus sign stays one."""
    return F.try_url_decode(F.replace(text, F.lit("+"), F.lit("%2B")))


def _partition_names(path: str) -> tuple[str, ...]:
    folders = unquote(urlparse(path).path).split("/")[:-1]
    return tuple(folder.partition("=")[0] for folder in folders if re.fullmatch(r"[A-Za-z_]\w*=.*", folder))


def _extension(path: str) -> str:
    name = path.rsplit("/", 1)[-1].lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return name.rpartition(".")[2] if "." in name else ""


def _sniffed(spark: SparkSession, path: str, extension: str) -> str:
    """Tell JSON from CSV by the first character of a file whose name has no extension, like `part-00000`."""
    if extension:
        raise UnreadableFileError(
            f"{UNKNOWN_KIND} (.{extension}): the known kinds are .{', .'.join(FORMATS)}, each also with "
            f"{', '.join(COMPRESSIONS)}. If the file has one of these formats, name it: --set source.format=csv"
        )
    return (
        "json" if _first_line(spark, path, "utf-8").lstrip(_BYTE_ORDER_MARK + " \t").startswith(("{", "[")) else "csv"
    )


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "us-ascii", "ascii")


def _check_columns(mapping: FieldMapping, columns: Sequence[str], partitions: Sequence[str]) -> None:
    if len(columns) > MAX_COLUMNS:
        raise UnreadableFileError(f"the file has {len(columns):,} columns, but at most {MAX_COLUMNS:,} can be read")
    try:
        mapping.columns_in([*columns, *(name for name in partitions if name not in columns)])
    except UsageError as error:
        raise UnreadableFileError(str(error)) from None


def _header_advice(line: str, columns: Sequence[str], delimiter: str) -> str:
    """Say what to type for a file whose header line lacks columns."""
    other = next((mark for mark in (";", "\t", "|", ",") if mark != delimiter and line.count(mark) > len(columns)), "")
    if other:
        shown = "\\t" if other == "\t" else other
        return f"Its columns seem to be separated by '{shown}': add --set 'source.delimiter={shown}'"
    if any(re.search(r"\d", name) for name in columns):
        return "If the file has no header line, add --set source.header=false"
    return "Describe the file's columns in a source description; `./spark-submit.sh inspect FILE` proposes one"


def _nanosecond_columns(spark: SparkSession, path: str) -> tuple[str, ...]:
    """Return the Parquet columns that are times in nanoseconds, which Spark reads as plain numbers."""
    jvm: Any = spark._jvm
    hadoop = jvm.org.apache.parquet.hadoop
    file = hadoop.util.HadoopInputFile.fromPath(
        jvm.org.apache.hadoop.fs.Path(path),
        spark._jsc.hadoopConfiguration(),
    )
    reader = hadoop.ParquetFileReader.open(file)
    try:
        fields = reader.getFooter().getFileMetaData().getSchema().getFields()
        return tuple(str(kind.getName()) for kind in fields if "NANOS" in str(kind.getLogicalTypeAnnotation()))
    finally:
        reader.close()


def _parquet_schema(spark: SparkSession, path: str) -> StructType:
    try:
        return spark.read.parquet(escape_glob(path)).schema
    except Exception as error:
        raise unreadable(path, error, " as Parquet") from error


def _first_line(spark: SparkSession, path: str, encoding: str) -> str:
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
    return bytes(line.copyBytes()).decode(encoding, "replace")


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
