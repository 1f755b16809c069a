"""Parsing of the times in a store's log, as its source description says. Pure functions of columns."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pyspark.sql import Column
from pyspark.sql import functions as F

from lambda_spark.source_description import FIRST_SECOND, LAST_SECOND, TIME_UNITS, SourceDescription

_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_WITH_OFFSET = r"[0-9]\s*[+-][0-9]{1,2}(:?[0-9]{2}){0,2}$"
_NAMED_ZONE = r"[0-9]\s*([A-Za-z][A-Za-z_/+0-9-]*)$"
_UTC_NAMES = ("Z", "z", "UTC", "GMT", "UT", "Zulu")


def described_time(text: Column, description: SourceDescription) -> Column:
    """Parse a text as a moment in time.

    Args:
        text: A time in the form that the description says: a number in its unit, or a text in its format. Without a
            format, a text like `2019-10-01 00:00:00 UTC` or in ISO 8601, with at least a whole date.
        description: Unit, format and zone of the times.

    Returns:
        A timestamp, null for any other text. Null also for a number outside 2000 to 2100, for a zone that is
        abbreviated, and for a local time that the change to summer time skips.
    """
    if description.time_format:
        local = F.try_to_timestamp(text, F.lit(description.time_format))
        return local if _has_zone(description.time_format) else _in_zone(local, F.lit(description.time_zone))
    number = F.when(_is_number(text), text.try_cast("decimal(38,9)"))
    unit = TIME_UNITS[description.time_unit]
    in_range = number.between(F.lit(FIRST_SECOND * unit), F.lit(LAST_SECOND * unit))
    micros = F.floor(number * (10**6 // unit) if unit <= 10**6 else number / (unit // 10**6))
    is_utc = F.endswith(text, F.lit(" UTC")) | F.endswith(text, F.lit("Z"))
    moment = F.when(is_utc, text.try_cast("timestamp")).otherwise(_iso_time(text, description))
    by_number = F.timestamp_micros(F.when(in_range, micros).cast("bigint"))
    return F.when(F.regexp_like(text, F.lit(_DATE)), moment).otherwise(by_number)


def flaw_of_time(text: Column, description: SourceDescription) -> Column:
    """Say why `described_time` returned null for a text."""
    if description.time_format:
        skipped = F.try_to_timestamp(text, F.lit(description.time_format)).isNotNull()
        words = f"is no time in the format {description.time_format}"
        return F.when(skipped, _skipped(description.time_zone)).otherwise(words)
    unit = description.time_unit
    number = text.try_cast("double")
    zone = F.regexp_extract(text, _NAMED_ZONE, 1)
    is_date = F.regexp_like(text, F.lit(_DATE))
    local = _without_zone(text).try_cast("timestamp_ntz")
    is_abbreviated = is_date & (F.length(zone) > 1) & ~zone.isin(*_UTC_NAMES) & ~F.contains(zone, F.lit("/"))
    return (
        F.when(_is_number(text) & (number < FIRST_SECOND * TIME_UNITS[unit]), f"is before 2000 as {unit}")
        .when(_is_number(text) & (number > LAST_SECOND * TIME_UNITS[unit]), f"is after 2100 as {unit}")
        .when(
            is_abbreviated,
            "has an abbreviated zone, which several regions use: name the region in source.time_zone",
        )
        .when(is_date & local.isNotNull() & (zone == ""), _skipped(description.time_zone))
        .when(is_date & local.isNotNull() & F.contains(zone, F.lit("/")), "is no time in its zone")
        .otherwise(f"is no time in {unit} or in ISO 8601" if unit == "seconds" else f"is no time in {unit}")
    )


def _skipped(zone: str) -> str:
    return f"does not exist in {zone}: the change to summer time skips it"


def _is_number(text: Column) -> Column:
    return F.regexp_like(text, F.lit(_NUMBER))


def _iso_time(text: Column, description: SourceDescription) -> Column:
    """Parse a text that begins with a whole date and does not end with UTC or Z."""
    zone = F.regexp_extract(text, _NAMED_ZONE, 1)
    # A date alone ends with digits and a hyphen before them, so it looks as if it had an offset.
    has_offset = (F.length(text) > 10) & F.regexp_like(F.substring(text, 11, 100), F.lit(_WITH_OFFSET))
    region = F.contains(zone, F.lit("/"))
    absolute = text.try_cast("timestamp")
    moment = (
        F.when(zone.isin(*_UTC_NAMES) | has_offset, absolute)
        .when(region & absolute.isNotNull(), _in_region(text, zone, absolute))
        .when(zone == "", _in_zone(text.try_cast("timestamp"), F.lit(description.time_zone)))
    )
    for name, offset in _abbreviations(description.time_zone).items():
        moment = F.when(zone == name, F.regexp_replace(text, f"{name}$", offset).try_cast("timestamp")).otherwise(
            moment
        )
    return moment


def _in_zone(local: Column, zone: Column) -> Column:
    """Return the moment of a local time that was read as UTC; null where the local time does not exist."""
    moment = F.to_utc_timestamp(local, zone)
    return F.when(F.from_utc_timestamp(moment, zone) == local, moment)


def _in_region(text: Column, zone: Column, moment: Column) -> Column:
    """Return a moment that was written with its region; null where that local time does not exist."""
    local = _without_zone(text).try_cast("timestamp")
    return F.when(F.from_utc_timestamp(moment, zone) == local, moment)


def _without_zone(text: Column) -> Column:
    """Remove the name of a zone from the end of a time."""
    return F.regexp_replace(text, r"\s*[A-Za-z][A-Za-z_/+0-9-]*$", "")


def _has_zone(pattern: str) -> bool:
    """Whether a Spark pattern for times contains a zone."""
    return re.search("[VzOXxZ]", re.sub("'[^']*'", "", pattern)) is not None


def _abbreviations(zone: str) -> dict[str, str]:
    """Return the abbreviations that a region uses from 2000 on, each with its offset; none that has two offsets."""
    offsets: dict[str, set[str]] = {}
    if zone == "UTC":
        return {}
    for month in range(12 * 40):
        moment = datetime(2000 + month // 12, month % 12 + 1, 1, tzinfo=UTC).astimezone(ZoneInfo(zone))
        name, offset = moment.tzname() or "", moment.utcoffset() or timedelta()
        if name.isalpha() and name not in _UTC_NAMES:
            sign, minutes = ("-" if offset < timedelta() else "+"), abs(offset) // timedelta(minutes=1)
            offsets.setdefault(name, set()).add(f"{sign}{minutes // 60:02}:{minutes % 60:02}")
    return {name: next(iter(found)) for name, found in sorted(offsets.items()) if len(found) == 1}
