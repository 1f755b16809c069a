"""Splitting of text lines into records: the columns of a CSV line, or the values of a JSON line. Pure functions."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.ingestion.field_mapping import INTERNAL, FieldMapping
from lambda_spark.ingestion.source import RAW_COLUMNS
from lambda_spark.source_description import DESCRIBED_FIELDS, SourceDescription

MAX_LINE_LENGTH = 16_384
"""Largest number of characters in a CSV line, and in all fields of a record together.

A line of at most this length has fewer fields than the CSV parser's limit.
"""
MAX_JSON_LENGTH = 2**20
"""Largest number of characters in a JSON line. One line may hold a whole order or session."""

_SOURCE, _RAW, _IS_HEADER, _FLAW = (f"{INTERNAL}{name}" for name in ("source", "raw", "is_header", "flaw"))
_NO_JSON = "not a JSON object of known form"
_BETWEEN_VALUES = r"\}\s*,?\s*\{"
"""Text between two JSON objects on one line, or between two elements of an array."""


def csv_options(description: SourceDescription, delimiter: str) -> dict[str, str | bool]:
    """Return the options with which Spark's CSV parser reads a described file.

    Args:
        description: The file's description.
        delimiter: The character between two columns.
    """
    return {
        **_line_options(description, delimiter),
        "header": description.header,
        "multiLine": description.multiline,
        "encoding": description.encoding,
    }


def _line_options(description: SourceDescription, delimiter: str) -> dict[str, str]:
    """Return the options that say how a single line is split."""
    return {"sep": delimiter, "quote": description.quote, "escape": description.escape}


def header_columns(line: str, delimiter: str, quote: str) -> tuple[str, ...]:
    """Split a CSV header line into the names of its columns.

    Args:
        line: The line, without a byte order mark.
        delimiter: The character between two columns.
        quote: The character around names that contain the delimiter.
    """
    row = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter, quotechar=quote), [])
    return tuple(name.strip().strip('"').strip() for name in row)


def csv_records(
    lines: DataFrame, columns: Sequence[str], needed: Mapping[str, str], description: SourceDescription, delimiter: str
) -> DataFrame:
    """Split CSV lines into the needed columns.

    Args:
        lines: Lines with the internal columns source, raw and is_header, and perhaps further ones.
        columns: Names of all columns, in order.
        needed: The column to read, by the name it gets. Names that are no column are left out.
        description: How values are quoted.
        delimiter: The character between two columns.

    Returns:
        One row per line: the internal columns, the internal column flaw, and the needed columns as texts.
    """
    schema = ", ".join([*(f"c{at} string" for at in range(len(columns))), "_corrupt string"])
    options = {
        "columnNameOfCorruptRecord": "_corrupt",
        "mode": "PERMISSIVE",
        **_line_options(description, delimiter),
    }
    usable = F.when(F.col("raw_flaw").isNull(), F.col(_RAW))
    # Split lines without quotes at their delimiters, because Spark's CSV parser takes twice as long (measured). Almost
    # all lines have no quotes.
    has_quote = F.contains(F.col(_RAW), F.lit(description.quote))
    split = F.when(~has_quote, F.split(usable, re.escape(delimiter), -1))
    parsed = F.from_csv(F.when(has_quote, usable), schema, options)
    quote, mark = re.escape(description.quote), re.escape(delimiter)
    unquoted = F.regexp_replace(_RAW, f"{quote}[^{quote}]*{quote}", "")
    separators = F.length(F.regexp_replace(unquoted, f"[^{mark}]", ""))
    wrong_count = (
        F.when(separators < len(columns) - 1, "too few fields")
        .when(separators > len(columns) - 1, "too many fields")
        .otherwise("quotes are not balanced")
    )
    is_unfit = F.col("parsed._corrupt").isNotNull() | (
        F.col("split_fields").isNotNull() & (F.size("split_fields") != len(columns))
    )
    fields = F.coalesce("split_fields", F.array(*(F.col(f"parsed.c{at}") for at in range(len(columns)))))
    position = {name: at for at, name in enumerate(columns)}
    values = {name: F.get("fields", F.lit(position[own])) for name, own in needed.items() if own in position}
    return (
        lines.withColumn("raw_flaw", _raw_flaw(MAX_LINE_LENGTH))
        .withColumns({"split_fields": split, "parsed": parsed})
        .withColumn("fields", fields)
        .select(
            *lines.columns,
            F.coalesce("raw_flaw", F.when(is_unfit, wrong_count)).alias(_FLAW),
            *(value.alias(name) for name, value in values.items()),
        )
    )


def json_records(lines: DataFrame, mapping: FieldMapping) -> DataFrame:
    """Parse lines of JSON. A line holds an object, several objects, or an array of objects.

    Args:
        lines: Lines with the internal columns source, raw and is_header, and perhaps further ones.
        mapping: The paths to read.

    Returns:
        One row per object: the internal columns, where `raw` is the object's own text, the internal column flaw, and
        the needed values.
    """
    corrupt = f"{INTERNAL}corrupt"
    schema = mapping.json_schema().add(corrupt, "string")
    raw_flaw = _raw_flaw(MAX_JSON_LENGTH)
    pieces = (
        lines.withColumn("raw_flaw", raw_flaw)
        .withColumn("piece", F.explode(F.when(F.col("raw_flaw").isNull(), _json_values()).otherwise(F.array(_RAW))))
        .withColumn(_RAW, F.col("piece"))
    )
    usable = F.when(F.col("raw_flaw").isNull(), F.col(_RAW))
    event = F.from_json(usable, schema, {"columnNameOfCorruptRecord": corrupt, "mode": "PERMISSIVE"})
    flaw = F.coalesce("raw_flaw", F.when(F.col(f"event.{corrupt}").isNotNull(), _NO_JSON))
    return pieces.withColumn("event", event).select(
        *lines.columns,
        flaw.alias(_FLAW),
        *(F.col(f"event.`{name}`") for name in schema.names if name != corrupt),
    )


def _json_values() -> Column:
    """Return the array of the JSON values on a line. A line that holds one object is returned as it is."""
    is_array = F.startswith(F.ltrim(_RAW), F.lit("["))
    elements = F.from_json(F.col(_RAW), "array<string>")
    # Objects with commas between them are the elements of an array without brackets. So is a single object.
    listed = F.from_json(F.concat(F.lit("["), _RAW, F.lit("]")), "array<string>")
    has_several = F.regexp_like(F.col(_RAW), F.lit(_BETWEEN_VALUES))
    return (
        F.when(is_array & (F.size(elements) > 0), elements)
        .when(has_several, F.coalesce(listed, _several_objects()))
        .otherwise(F.array(_RAW))
    )


def _several_objects() -> Column:
    """Split a line between its objects, but not inside an object or a text.

    The line is cut at every place that looks like a boundary. Pieces are then joined until their braces are balanced.
    """
    cut = F.split(F.col(_RAW), r"(?<=\})(?=\s*,?\s*\{)")
    nothing = F.struct(F.array().cast("array<string>").alias("done"), F.lit("").alias("open"))

    def join(state: Column, piece: Column) -> Column:
        text = F.concat(state["open"], piece)
        bare = F.regexp_replace(F.regexp_replace(text, r"\\.", ""), r'"[^"]*"', "")
        opened, closed = F.regexp_count(bare, F.lit(r"[\{\[]")), F.regexp_count(bare, F.lit(r"[\}\]]"))
        is_whole = (opened == closed) & ~F.contains(bare, F.lit('"'))
        whole = F.regexp_replace(text, r"^\s*,?\s*", "")
        return F.struct(
            F.when(is_whole, F.concat(state["done"], F.array(whole))).otherwise(state["done"]).alias("done"),
            F.when(is_whole, F.lit("")).otherwise(text).alias("open"),
        )

    def finish(state: Column) -> Column:
        return F.when(state["open"] == "", state["done"]).otherwise(F.concat(state["done"], F.array(state["open"])))

    return F.aggregate(cut, nothing, join, finish)


def raw_rows(fields: DataFrame) -> DataFrame:
    """Rename the internal columns, and find flaws that only the parsed fields show.

    Args:
        fields: The result of `FieldMapping.fields`.

    Returns:
        `RAW_COLUMNS` and the further internal columns, without their prefix.
    """
    joined = F.concat_ws(",", *DESCRIBED_FIELDS)
    flaw = F.coalesce(
        F.col(_FLAW),
        F.when(~F.is_valid_utf8(joined), "not valid UTF-8"),
        F.when(_is_longer(joined, MAX_LINE_LENGTH), f"line longer than {MAX_LINE_LENGTH} characters"),
        F.when(F.contains(joined, F.lit("\0")), "NUL character in the line"),
    )
    position = f"{INTERNAL}position"
    if position not in fields.columns:
        fields = fields.withColumn(position, F.lit(None).cast("int"))
    known = [f"{INTERNAL}{name}" for name in RAW_COLUMNS]
    others = [name for name in fields.columns if name.startswith(INTERNAL) and name not in known]
    return fields.select(
        F.col(_SOURCE).alias("source"),
        F.col(_RAW).alias("raw"),
        F.col(_IS_HEADER).alias("is_header"),
        *DESCRIBED_FIELDS,
        flaw.alias("flaw"),
        F.col(position).alias("position"),
        *(F.col(name).alias(name.removeprefix(INTERNAL)) for name in others),
    )


def _raw_flaw(max_length: int) -> Column:
    """Return the reason why a line must not be parsed, or null where the line may be parsed."""
    raw = F.col(_RAW)
    return (
        F.when(~F.is_valid_utf8(raw), "not valid UTF-8")
        .when(_is_longer(raw, max_length), f"line longer than {max_length} characters")
        .when(F.contains(raw, F.lit("\0")), "NUL character in the line")
        .when(F.trim(raw) == "", "empty line")
    )


def _is_longer(text: Column, max_length: int) -> Column:
    # Compare the number of bytes first: Spark stores that number, but has to count the characters.
    return (F.octet_length(text) > max_length) & (F.length(text) > max_length)
