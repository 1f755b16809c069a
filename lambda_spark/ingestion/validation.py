"""Validation of raw lines. A line becomes a typed event, or gets the reasons for its rejection.

The functions are pure functions on DataFrames and columns.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import EVENT_TYPES, FIELDS, REQUIRED

MAX_LINE_LENGTH = 16_384
"""Largest number of characters in a valid line.

The number of fields in a line of this length is below the limit of Spark's CSV parser.
"""
_SEPARATOR = "\n"
"""Separator between the rejection reasons of a line, joined into one text. No reason contains this separator."""


def validate(
    fields: DataFrame,
    *,
    min_event_date: date,
    max_ahead: timedelta,
    retention_cutoff: date | None = None,
) -> DataFrame:
    """Cast the nine fields of each line to their types, and list the reasons to reject the line.

    If `flaw` names a fault, this fault is the line's only reason, because the line's fields cannot be trusted.

    Args:
        fields: Lines with the nine fields as texts, `flaw` and `ingested_at`. `flaw` names what is wrong with the whole
            line, or is null. `ingested_at` is the time of the micro-batch.
        min_event_date: Events before this date (UTC) are rejected.
        max_ahead: Events that are further ahead of `ingested_at` than this are rejected.
        retention_cutoff: Events before this date (UTC) have expired and are rejected too. None if no events expire.

    Returns:
        The same lines without `flaw`. The nine columns are typed, and null where malformed. New columns are
        `event_date` (UTC), `event_id`, and the array `reasons`, which is empty for a valid event. Other columns stay.
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
    # Join the reasons into one text. An array would need an array function to drop its nulls, and Spark interprets
    # array functions row by row, which is slow. Build the text only for lines with a reason, which are rare.
    reasons = _reasons(min_event_date, max_ahead, retention_cutoff)
    is_bad = reduce(Column.__or__, reasons.values())
    all_reasons = F.concat_ws(_SEPARATOR, *(F.when(condition, reason) for reason, condition in reasons.items()))
    reason_text = F.when(F.col("flaw").isNotNull(), F.col("flaw")).when(is_bad, all_reasons).otherwise(F.lit(""))
    no_reasons = F.array().cast("array<string>")
    return inspected.select(
        *kept,
        *FIELDS,
        F.to_date("event_time").alias("event_date"),
        event_id().alias("event_id"),
        reason_text.alias("reason_text"),
    ).select(
        *kept,
        *FIELDS,
        "event_date",
        "event_id",
        F.when(F.col("reason_text") == "", no_reasons).otherwise(F.split("reason_text", _SEPARATOR)).alias("reasons"),
    )


def event_time(text: Column) -> Column:
    """Parse a text as a moment in time.

    A date must have year, month and day. Spark's own cast would also read `2019` as a date and `12:30` as a time of
    today.

    Args:
        text: A time like `2019-10-01 00:00:00 UTC`, in ISO 8601, or in epoch seconds.

    Returns:
        A timestamp, or null for any other text. A text without a time zone is taken as UTC.
    """
    looks_like_a_date = (F.length(text) >= 10) & (F.substring(text, 5, 1) == "-") & (F.substring(text, 8, 1) == "-")
    seconds = _decimal(text, "decimal(17,6)")
    in_range = seconds.between(F.lit(-62135596800), F.lit(253402300799))
    return F.when(looks_like_a_date, text.try_cast("timestamp")).when(in_range, F.timestamp_seconds(seconds))


def event_id() -> Column:
    """Compute the id of an event from its nine typed columns.

    The hash is taken over a text made from all columns. It has numbers and times (epoch microseconds) as digits, texts
    with their length in front, and null as `~`. Different events therefore always give different texts.

    Returns:
        The first 16 bytes of SHA-256 over this text, as 32 hex characters.
    """

    def plain(value: Column) -> Column:
        return F.coalesce(value.cast("string"), F.lit("~"))

    def with_length(name: str) -> Column:
        return F.coalesce(F.concat(F.length(name).cast("string"), F.lit(":"), F.col(name)), F.lit("~"))

    hashed_text = F.concat_ws(
        "|",
        plain(F.unix_micros("event_time")),
        with_length("event_type"),
        plain(F.col("product_id")),
        plain(F.col("category_id")),
        with_length("category_code"),
        with_length("brand"),
        plain(F.col("price")),
        plain(F.col("user_id")),
        with_length("user_session"),
    )
    return F.substring(F.sha2(hashed_text, 256), 1, 32)


def _decimal(text: Column, kind: str) -> Column:
    """Cast a text to a decimal, or to null if the text is not a decimal.

    An exponent of more than three digits also gives null, because Java would take hours to compute the power of ten.
    """
    has_exponent = F.contains(text, F.lit("e")) | F.contains(text, F.lit("E"))
    is_short = F.regexp_like(text, F.lit(r"[eE][+-]?\d{1,3}$"))
    return F.when(~has_exponent | is_short, text.try_cast(kind))


def _given(name: str) -> str:
    return f"{name}_is_given"


def _trimmed(value: Column) -> Column:
    return F.nullif(F.trim(value), F.lit(""))


def _reasons(min_event_date: date, max_ahead: timedelta, retention_cutoff: date | None) -> dict[str, Column]:
    """Return the rejection reasons, each with the condition for it. A rejected line lists reasons in this order."""
    missing = {f"{name} is missing": ~F.col(_given(name)) for name in REQUIRED}
    malformed = {f"{name} is malformed": F.col(_given(name)) & F.col(name).isNull() for name in FIELDS}
    expired = F.lit(False) if retention_cutoff is None else F.to_date("event_time") < F.lit(retention_cutoff)
    latest = F.timestamp_micros(F.unix_micros("ingested_at") + F.lit(max_ahead // max_ahead.resolution))
    return {
        **missing,
        **malformed,
        f"event_time is before {min_event_date}": F.col("event_time") < F.lit(min_event_date).cast("timestamp"),
        f"event_time is before the lake's cut date {retention_cutoff}": expired,
        "event_time is in the future": F.col("event_time") > latest,
        "event_type is unknown": ~F.col("event_type").isin(*EVENT_TYPES),
        "product_id is not above 0": F.col("product_id") <= 0,
        "user_id is not above 0": F.col("user_id") <= 0,
        "price is below 0": F.col("price") < 0,
    }
