"""From raw fields to a valid event, or to the reasons why it is none. Pure: columns in, columns out."""

from __future__ import annotations

from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import EVENT_TYPES, FIELDS, REQUIRED

MAX_LINE_LENGTH = 16_384
"""Characters of the longest line that is taken for an event; its fields are then fewer than the CSV parser can bear."""
_DAY = 86_400_000_000
"""In microseconds."""
_SEPARATOR = "\n"
"""Between reasons while they are one text; no reason has it."""


def validate(fields: DataFrame, *, earliest: date, cut: date | None = None) -> DataFrame:
    """Type the nine fields and name what is wrong with them.

    `fields` has the nine columns as text, `flaw` (what is wrong with the line as a whole, or null) and `ingested_at`
    (the micro-batch's clock); other columns are kept. Returned are the nine columns typed (null where malformed),
    `event_date`, `event_id` and `reasons` (array, empty for a valid event); `flaw` is dropped. A line with a flaw has
    no other reasons, since its fields cannot be trusted. What is older than `cut` has expired.
    """
    text = {name: _trimmed(F.col(name)) for name in FIELDS}
    typed = {
        "event_time": event_time(text["event_time"]),
        "event_type": text["event_type"],
        "product_id": text["product_id"].try_cast("bigint"),
        "category_id": text["category_id"].try_cast("bigint"),
        "category_code": text["category_code"],
        "brand": text["brand"],
        "price": _decimal(text["price"], "decimal(12,2)"),
        "user_id": text["user_id"].try_cast("bigint"),
        "user_session": text["user_session"],
    }
    kept = [name for name in fields.columns if name not in (*FIELDS, "flaw")]
    inspected = fields.select(
        *kept,
        "flaw",
        *(typed[name].alias(name) for name in FIELDS),
        *(text[name].isNotNull().alias(_given(name)) for name in FIELDS),
    )
    # One text, not an array of reasons and nulls to be compacted: Spark interprets functions of arrays row by row. And
    # made only where there is a reason, which is seldom.
    reasons = _reasons(earliest, cut)
    is_bad = reduce(Column.__or__, reasons.values())
    all_reasons = F.concat_ws(_SEPARATOR, *(F.when(condition, reason) for reason, condition in reasons.items()))
    found = F.when(F.col("flaw").isNotNull(), F.col("flaw")).when(is_bad, all_reasons).otherwise(F.lit(""))
    no_reasons = F.array().cast("array<string>")
    return inspected.select(
        *kept,
        *FIELDS,
        F.to_date("event_time").alias("event_date"),
        event_id().alias("event_id"),
        found.alias("found"),
    ).select(
        *kept,
        *FIELDS,
        "event_date",
        "event_id",
        F.when(F.col("found") == "", no_reasons).otherwise(F.split("found", _SEPARATOR)).alias("reasons"),
    )


def event_time(text: Column) -> Column:
    """The moment of `2019-10-01 00:00:00 UTC`, of ISO 8601, or of epoch seconds; UTC where there is no zone.

    Null for anything else: Spark's own cast would also take `2019` for a date and `12:30` for today.
    """
    looks_like_a_date = (F.length(text) >= 10) & (F.substring(text, 5, 1) == "-") & (F.substring(text, 8, 1) == "-")
    seconds = _decimal(text, "decimal(17,6)")
    in_range = seconds.between(F.lit(-62135596800), F.lit(253402300799))
    return F.when(looks_like_a_date, text.try_cast("timestamp")).when(in_range, F.timestamp_seconds(seconds))


def event_id() -> Column:
    """Hex of the first 16 bytes of SHA-256 over the nine typed columns.

    Numbers and times are written plainly, texts with their length before them, and null as `~`, so that no two events
    share one writing.
    """

    def plain(value: Column) -> Column:
        return F.coalesce(value.cast("string"), F.lit("~"))

    def measured(name: str) -> Column:
        return F.coalesce(F.concat(F.length(name).cast("string"), F.lit(":"), F.col(name)), F.lit("~"))

    writing = F.concat_ws(
        "|",
        plain(F.unix_micros("event_time")),
        measured("event_type"),
        plain(F.col("product_id")),
        plain(F.col("category_id")),
        measured("category_code"),
        measured("brand"),
        plain(F.col("price")),
        plain(F.col("user_id")),
        measured("user_session"),
    )
    return F.substring(F.sha2(writing, 256), 1, 32)


def _decimal(text: Column, kind: str) -> Column:
    """A text as a decimal, null where it is none; or where its exponent has more than three digits, whose power of ten
    Java would compute, for hours."""
    has_exponent = F.contains(text, F.lit("e")) | F.contains(text, F.lit("E"))
    is_short = F.regexp_like(text, F.lit(r"[eE][+-]?\d{1,3}$"))
    return F.when(~has_exponent | is_short, text.try_cast(kind))


def _given(name: str) -> str:
    return f"{name}_is_given"


def _trimmed(value: Column) -> Column:
    return F.nullif(F.trim(value), F.lit(""))


def _reasons(earliest: date, cut: date | None) -> dict[str, Column]:
    """Reason: the condition that is true where it holds, in the order in which they are named."""
    missing = {f"{name} is missing": ~F.col(_given(name)) for name in REQUIRED}
    malformed = {f"{name} is malformed": F.col(_given(name)) & F.col(name).isNull() for name in FIELDS}
    expired = F.lit(False) if cut is None else F.to_date("event_time") < F.lit(cut)
    latest = F.timestamp_micros(F.unix_micros("ingested_at") + F.lit(_DAY))
    return {
        **missing,
        **malformed,
        f"event_time is before {earliest}": F.col("event_time") < F.lit(earliest).cast("timestamp"),
        f"event_time is before the lake's cut date {cut}": expired,
        "event_time is in the future": F.col("event_time") > latest,
        "event_type is unknown": ~F.col("event_type").isin(*EVENT_TYPES),
        "product_id is not above 0": F.col("product_id") <= 0,
        "user_id is not above 0": F.col("user_id") <= 0,
        "price is below 0": F.col("price") < 0,
    }
