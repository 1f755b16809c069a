"""Validation of raw fields: a record becomes a typed event, is ignored, or gets the reasons for its rejection.

The functions are pure: columns in, columns out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lambda_spark.event_format import EVENT_TYPES, FIELDS, REQUIRED
from lambda_spark.ids import Ids
from lambda_spark.ingestion.times import described_time, flaw_of_time
from lambda_spark.source_description import EVENT_ID, IGNORE, SourceDescription

_SEPARATOR = "\n"
"""Separator of reasons that are joined into one text. No reason contains this separator."""
_SHOWN = 40
"""Number of characters of a value that a reason quotes."""
_ROUNDED = r"^-?[0-9]([.,][0-9]{1,5})?[eE]\+(1[1-9]|[2-9][0-9])$"
"""Pattern of a long number as spreadsheets show it, like 2.05301E+18. Its last digits are lost."""
_WITH_TEXT_AS_WRITTEN = 'Keep ids as written with source.ids = "text"'


def validate(
    fields: DataFrame,
    description: SourceDescription,
    labels: Mapping[str, str],
    *,
    min_event_date: date,
    max_ahead: timedelta,
    retention_cutoff: date | None = None,
    category_type: str = "string",
) -> DataFrame:
    """Cast the fields of each record to their types, and list the reasons to reject the record.

    A record with a flaw gets no other reasons, because its fields cannot be trusted. An ignored record gets none. A
    record without a user is valid if it has a session: it is a guest's.

    Args:
        fields: Records with the fields as texts, `flaw`, `position` and `ingested_at`. `flaw` names what is wrong with
            the whole record, or is null. `ingested_at` is the time of the micro-batch.
        description: How times, prices and ids are written, which texts mean null, and the log's event names.
        labels: The name that reasons use for each field.
        min_event_date: Events before this date (UTC) are rejected.
        max_ahead: Events that are further ahead of `ingested_at` than this are rejected.
        retention_cutoff: Events before this date (UTC) have expired and are rejected too; None where nothing expires.
        category_type: Spark type of `category_id` in the lake. Lakes of version 0.1 have numbers.

    Returns:
        The same records without `flaw`. The nine columns are typed, and null where malformed. New columns are
        `event_date` (UTC), `event_id`, `is_ignored`, `nulled_fields` (the malformed optional fields of a valid event,
        each with its text; else null), and the array `reasons`, which is empty for a valid event. Other columns stay.
    """
    kept = [name for name in fields.columns if name not in (*FIELDS, EVENT_ID, "flaw")]
    texts = {name: _without_nulls(F.col(name), description) for name in (*FIELDS, EVENT_ID)}
    texts["event_type"] = _our_event_type(texts["event_type"], description)
    # Compute the texts in a projection of their own. Otherwise each use of a text would repeat its whole expression.
    trimmed = fields.select(*kept, "flaw", *(text.alias(_text_of(name)) for name, text in texts.items()))
    text = {name: F.col(_text_of(name)) for name in texts}
    typed = {
        **{name: text[name] for name in ("event_type", "category_code", "brand", "user_session")},
        "event_time": described_time(text["event_time"], description),
        "product_id": _id(text["product_id"], description),
        "category_id": _category(text["category_id"]).try_cast(category_type),
        "price": _price(text["price"], description),
        "user_id": _user(text["user_id"], description),
    }
    inspected = trimmed.select(
        *kept,
        "flaw",
        *(typed[name].alias(name) for name in FIELDS),
        *text.values(),
        (F.col("flaw").isNull() & F.coalesce(text["event_type"] == IGNORE, F.lit(False))).alias("is_ignored"),
    )
    # Join the reasons into one text. An array of reasons would need an array function to drop its nulls, and Spark
    # interprets array functions row by row. Build the text only where there is a reason, which is rare.
    reasons = _reasons(description, labels, min_event_date, max_ahead, retention_cutoff)
    is_bad = reduce(Column.__or__, (condition for condition, _ in reasons))
    all_reasons = F.concat_ws(_SEPARATOR, *(F.when(condition, reason) for condition, reason in reasons))
    reason_text = (
        F.when(F.col("flaw").isNotNull(), F.col("flaw"))
        .when(F.col("is_ignored"), "")
        .when(is_bad, all_reasons)
        .otherwise(F.lit(""))
    )
    inspected = inspected.select(
        *kept,
        "is_ignored",
        *FIELDS,
        F.to_date("event_time").alias("event_date"),
        _nulled_fields().alias("nulled_fields"),
        F.col(_text_of(EVENT_ID)).alias("given_id"),
        reason_text.alias("reason_text"),
    )
    no_reasons = F.array().cast("array<string>")
    return _with_event_id(inspected, description).select(
        *kept,
        "is_ignored",
        *FIELDS,
        "event_date",
        "event_id",
        "nulled_fields",
        F.when(F.col("reason_text") == "", no_reasons).otherwise(F.split("reason_text", _SEPARATOR)).alias("reasons"),
    )


def _with_event_id(inspected: DataFrame, description: SourceDescription) -> DataFrame:
    """Add `event_id`: a hash of the log's own id where it has one, else of the typed columns.

    Identical records that are to be kept get a number each, counted within their file.
    """
    text, nulled = _hashed_text(description.ids), F.to_json("nulled_fields")
    text = F.when(nulled.isNotNull(), F.concat(text, F.lit("|"), nulled)).otherwise(text)
    if EVENT_ID in description.fields:
        text = F.coalesce(F.concat(F.lit("id|"), F.col("given_id")), text)
    if description.identical == "keep":
        same = Window.partitionBy("source", text).orderBy("position")
        inspected = inspected.withColumn("copy", F.row_number().over(same))
        text = F.when(F.col("copy") > 1, F.concat(text, F.lit("|copy "), F.col("copy"))).otherwise(text)
    return inspected.withColumn(EVENT_ID, F.substring(F.sha2(text, 256), 1, 32))


def _hashed_text(ids: Ids) -> Column:
    """Write the nine typed columns of an event as one text, from which its id is computed.

    The text has numbers and times (epoch microseconds) as digits, texts with their length in front, and null as `~`.
    Two different events therefore never have the same text.
    """

    def plain(value: Column) -> Column:
        return F.coalesce(value.cast("string"), F.lit("~"))

    def with_length(name: str) -> Column:
        return F.coalesce(F.concat(F.length(name).cast("string"), F.lit(":"), F.col(name)), F.lit("~"))

    def of_id(name: str) -> Column:
        return plain(F.col(name)) if ids == "integer" else with_length(name)

    return F.concat_ws(
        "|",
        plain(F.unix_micros("event_time")),
        with_length("event_type"),
        of_id("product_id"),
        plain(F.col("category_id")),
        with_length("category_code"),
        with_length("brand"),
        plain(F.col("price")),
        of_id("user_id"),
        with_length("user_session"),
    )


def _without_nulls(value: Column, description: SourceDescription) -> Column:
    """Trim a text, and replace the texts that mean null by null."""
    trimmed = F.trim(value)
    nulls = {text.strip() for text in description.nulls} | {""}
    longest = max(len(text.encode()) for text in nulls)
    # Compare the length first, because almost all values are longer than these texts.
    is_null = (F.octet_length(trimmed) <= longest) & trimmed.isin(sorted(nulls))
    return F.when(~is_null, trimmed)


def _our_event_type(theirs: Column, description: SourceDescription) -> Column:
    """Translate the log's event name. An unknown name stays as it is, or becomes `ignore`."""
    known = {name: name for name in (*EVENT_TYPES, IGNORE)}
    names = dict(description.event_types) or known
    if description.event_types and IGNORE not in names:
        names[IGNORE] = IGNORE
    unknown = F.lit(IGNORE) if description.on_unknown_event == "ignore" else F.concat(F.lit("?"), theirs)
    ours = F.lit(None).cast("string")
    if all(name == our for name, our in names.items()):
        ours = F.when(theirs.isin(sorted(names)), theirs)
    else:
        pairs = F.create_map(*(F.lit(text) for pair in sorted(names.items()) for text in pair))
        ours = F.try_element_at(pairs, theirs)
    return F.when(theirs.isNotNull(), F.coalesce(ours, unknown))


def _id(text: Column, description: SourceDescription) -> Column:
    """Cast a product or user id; null where the text is no id."""
    if description.ids == "text":
        return text
    plain = text.try_cast("bigint")
    # A program that keeps ids as floating-point numbers writes 17850.0 or 5.4131214E8. Such a number is exact up to
    # 2**53, but not where a spreadsheet has rounded it.
    is_float = F.regexp_like(text, F.lit(r"^[1-9][0-9]*\.0+$|^[1-9](\.[0-9]+)?[eE]\+?[0-9]{1,2}$"))
    number = F.when(is_float & ~_is_rounded(text), text.try_cast("decimal(38,10)"))
    whole = number.try_cast("bigint")
    is_exact = (whole == number) & (whole < F.lit(2**53))
    return F.when(plain.cast("string") == text, plain).when(is_exact, whole)


def _user(text: Column, description: SourceDescription) -> Column:
    """Cast a user id; null where the text is no id, or is an id that means nobody."""
    user = _id(text, description)
    if description.ids == "integer":
        user = F.when(user > 0, user)
    return F.when(~text.isin(*description.nobody), user) if description.nobody else user


def _is_nobody(text: Column, description: SourceDescription) -> Column:
    """Whether a text is a user id that means nobody."""
    is_nobody = text.isin(*description.nobody) if description.nobody else F.lit(False)
    if description.ids == "integer":
        is_nobody = is_nobody | (_id(text, description) <= 0)
    return F.coalesce(is_nobody, F.lit(False))


def _category(text: Column) -> Column:
    return F.when(~_is_rounded(text), text)


def _is_rounded(text: Column) -> Column:
    return F.contains(text, F.lit("E+")) & F.regexp_like(text, F.lit(_ROUNDED))


def _price(text: Column, description: SourceDescription) -> Column:
    """Cast a price; null where the text is no price of at least 0."""
    if description.decimal_comma:
        text = F.replace(F.replace(text, F.lit("."), F.lit("")), F.lit(","), F.lit("."))
    price = _decimal(text, "decimal(12,2)")
    return F.when(price >= 0, price)


def _decimal(text: Column, kind: str) -> Column:
    """Cast a text to a decimal; null where the text is not one.

    An exponent of more than three digits also gives null, because Java would compute the power of ten for hours.
    """
    has_exponent = F.contains(text, F.lit("e")) | F.contains(text, F.lit("E"))
    is_short = F.regexp_like(text, F.lit(r"[eE][+-]?\d{1,3}$"))
    return F.when(~has_exponent | is_short, text.try_cast(kind))


def _text_of(name: str) -> str:
    return f"{name}_text"


def _is_malformed(name: str) -> Column:
    return F.col(_text_of(name)).isNotNull() & F.col(name).isNull()


def _nulled_fields() -> Column:
    """Return the malformed optional fields with their texts; null where there are none."""
    can_be_malformed = ("category_id", "price")
    pairs = [F.struct(F.lit(name), F.substring(_text_of(name), 1, 200)) for name in can_be_malformed]
    present = F.array_compact(
        F.array(*(F.when(_is_malformed(name), pair) for name, pair in zip(can_be_malformed, pairs, strict=True)))
    )
    is_any = reduce(Column.__or__, map(_is_malformed, can_be_malformed))
    return F.when(is_any, F.map_from_entries(present))


def _reasons(
    description: SourceDescription,
    labels: Mapping[str, str],
    min_event_date: date,
    max_ahead: timedelta,
    retention_cutoff: date | None,
) -> list[tuple[Column, Column]]:
    """Return each condition for a rejection with its reason, in the order in which a record lists its reasons."""

    def quoted(name: str, words: str | Column) -> Column:
        value = F.translate(F.substring(_text_of(name), 1, _SHOWN), _SEPARATOR, " ")
        end = F.when(F.length(_text_of(name)) > _SHOWN, F.lit('…" ')).otherwise(F.lit('" '))
        return F.concat(F.lit(f'{labels[name]} "'), value, end, words if isinstance(words, Column) else F.lit(words))

    def missing(name: str) -> tuple[Column, Column]:
        return F.col(_text_of(name)).isNull(), F.lit(f"{labels[name]} is missing")

    def bad_id(name: str) -> tuple[Column, Column]:
        return _is_malformed(name), quoted(name, _flaw_of_id(F.col(_text_of(name))))

    time, cutoff = F.col("event_time"), F.lit(False)
    if retention_cutoff is not None:
        cutoff = F.to_date("event_time") < F.lit(retention_cutoff)
    latest = F.timestamp_micros(F.unix_micros("ingested_at") + F.lit(max_ahead // max_ahead.resolution))
    event_type = F.col("event_type")
    theirs = F.substring(event_type, 2, _SHOWN)
    unknown = F.concat(
        F.lit(f'{labels["event_type"]} "'), theirs, F.lit('" is unknown: map it in source.event_types, or ignore it')
    )
    user, no_session = F.col(_text_of("user_id")), F.col("user_session").isNull()
    is_nobody = _is_nobody(user, description)
    reasons = [
        *(missing(name) for name in REQUIRED if name != "user_id"),
        (user.isNull() & no_session, F.lit(f"{labels['user_id']} is missing, and there is no session")),
        (no_session & is_nobody, quoted("user_id", "means nobody, and there is no session")),
        (_is_malformed("event_time"), quoted("event_time", flaw_of_time(F.col(_text_of("event_time")), description))),
        (time < F.lit(min_event_date).cast("timestamp"), quoted("event_time", f"is before {min_event_date}")),
        (cutoff, quoted("event_time", f"is before the lake's cut date {retention_cutoff}")),
        (time > latest, quoted("event_time", "is in the future")),
        (F.startswith(event_type, F.lit("?")), unknown),
    ]
    if description.ids == "integer":
        is_bad, reason = bad_id("user_id")
        reasons += [
            bad_id("product_id"),
            (is_bad & ~is_nobody, reason),
            (F.col("product_id") <= 0, quoted("product_id", "is not above 0")),
        ]
    if description.strict:
        reasons += [
            (_is_malformed("category_id"), quoted("category_id", "is a rounded number")),
            (_is_malformed("price"), quoted("price", "is no price of at least 0")),
        ]
    return [(F.coalesce(condition, F.lit(False)), reason) for condition, reason in reasons]


def _flaw_of_id(text: Column) -> Column:
    """Say why a text is no id of a lake whose ids are whole numbers."""
    return (
        F.when(_is_rounded(text), "is a rounded number, so the id is lost")
        .when(
            F.regexp_like(text, F.lit(r"^(\+[0-9]+|-?0[0-9]+)$")),
            f"has a leading zero or sign, so as a number it could be another id. {_WITH_TEXT_AS_WRITTEN}",
        )
        .when(
            F.regexp_like(text, F.lit(r"^-?[0-9]+(\.0+)?$")),
            f"is no whole number of 64 bits. {_WITH_TEXT_AS_WRITTEN}",
        )
        .otherwise(f"is no whole number. {_WITH_TEXT_AS_WRITTEN}")
    )
