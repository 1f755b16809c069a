"""Finds out how a log writes its times: as numbers of which unit, or as texts of which pattern."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from lambda_spark.source_description import FIRST_SECOND, LAST_SECOND, TIME_UNITS

EARLIEST, LATEST = (datetime.fromtimestamp(second, UTC) for second in (FIRST_SECOND, LAST_SECOND))
"""Times outside are rejected. Within, the ranges of the units do not overlap."""
_ENOUGH = 0.8
"""Smallest share of a column's values that are times, for the column to be one of times."""

_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?"
    r" ?(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?|[A-Z][a-z]+/[A-Za-z_]+|[A-Z]{2,5})?"
)
_DATE = re.compile(
    r"(?P<a>\d{1,4})(?P<sign>[./-])(?P<b>\d{1,2})(?P=sign)(?P<c>\d{2,4})"
    r"(?P<between>T|,? )?(?P<clock>\d{1,2}:\d{2}(?P<second>:\d{2})?(?P<part>\.\d{1,9})?(?P<half> ?[AaPp][Mm])?)?"
)
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE]\+?\d+)?")
_REGIONS = ("Europe/London", "Europe/Dublin", "Europe/Berlin", "Europe/Athens", "Europe/Moscow", "America/New_York",
            "America/Chicago", "America/Denver", "America/Los_Angeles", "Asia/Kolkata", "Asia/Jerusalem", "Asia/Manila",
            "Asia/Shanghai", "Asia/Tokyo", "Asia/Seoul", "Australia/Sydney", "Australia/Perth")  # fmt: skip
_PYTHON = {"dd": "%d", "d": "%d", "MM": "%m", "M": "%m", "yyyy": "%Y", "yy": "%y", "HH": "%H", "H": "%H", "hh": "%I",
           "h": "%I", "mm": "%M", "ss": "%S", "a": "%p"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How a column writes its times."""

    unit: str = ""
    """Unit of numbers, or empty."""
    format: str = ""
    """Spark's pattern of texts, or empty for ISO 8601."""
    zoned: bool = True
    """Whether every time names its zone. Numbers do."""
    days_only: bool = False
    """Whether the times are days."""
    why: str = ""
    doubt: str = ""
    """Why the way is not sure, or empty."""
    candidates: tuple[str, ...] = ()
    """Where it is not sure: lines of a description, of which one is right."""


def times_of(values: Sequence[str]) -> Times | None:
    """Find out how times are written.

    Args:
        values: Values of one column, none of them empty.

    Returns:
        None if most values are no times, or if there are none.
    """
    if not values:
        return None
    for kind in (_compact_dates, _numbers, _iso, _dates):
        found = kind(values)
        if found:
            return found
    return None


def _share(values: Sequence[str], pattern: Callable[[str], Any]) -> float:
    return sum(bool(pattern(value)) for value in values) / len(values) if values else 0.0


def _compact_dates(values: Sequence[str]) -> Times | None:
    if _share(values, re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])([0-2]\d|3[01])").fullmatch) < _ENOUGH:
        return None
    return Times(format="yyyyMMdd", zoned=False, days_only=True, why="eight digits are a day")


def unit_of(value: str) -> str:
    """Return the unit in which a number is a time between 2000 and 2100, or an empty text."""
    if not _NUMBER.fullmatch(value):
        return ""
    number = float(value)
    return next((unit for unit, second in TIME_UNITS.items() if _in_range(number / second)), "")


def _in_range(second: float) -> bool:
    return EARLIEST.timestamp() <= second < LATEST.timestamp()


def _numbers(values: Sequence[str]) -> Times | None:
    units = Counter(map(unit_of, values))
    del units[""]
    if units.total() < _ENOUGH * len(values):
        return None
    (unit, most), *others = units.most_common()
    why = f"numbers of {unit} since 1970 fall between 2000 and 2100"
    # A few of another unit are bad records. From 1 % on, two programs write this log.
    if others and units.total() - most > 0.01 * len(values):
        mixed = ", ".join(f"{number} in {name}" for name, number in units.most_common())
        candidates = tuple(f'time_unit = "{name}"' for name, _ in units.most_common())
        return Times(unit=unit, why=why, doubt=f"times are mixed: {mixed}", candidates=candidates)
    return Times(unit=unit, why=why)


def _iso(values: Sequence[str]) -> Times | None:
    matches = [match for match in map(_ISO.fullmatch, values) if match]
    if len(matches) < _ENOUGH * len(values):
        return None
    zones = Counter(match["zone"] for match in matches)
    short = [zone for zone in zones if zone and zone.isalpha() and zone not in ("Z", "UTC", "GMT")]
    days = sum(len(value.strip()) == 10 for value in values) > 0.5 * len(values)
    return Times(
        zoned=None not in zones,
        days_only=days,
        why="ISO 8601",
        doubt=f"{short[0]} is the zone of several regions" if short else "",
        candidates=tuple(f'time_zone = "{region}"' for region in regions_of(short[0])) if short else (),
    )


def regions_of(abbreviation: str) -> list[str]:
    """List large regions whose clocks name their zone by an abbreviation, like Europe/London for BST."""
    seasons = [datetime(2020, month, 1, tzinfo=UTC) for month in (1, 7)]
    found = [
        region
        for region in _REGIONS
        if abbreviation in {season.astimezone(ZoneInfo(region)).tzname() for season in seasons}
    ]
    return found or ["NAME OF A REGION"]


def _dates(values: Sequence[str]) -> Times | None:
    matches = [match for match in map(_DATE.fullmatch, values) if match]
    if len(matches) < _ENOUGH * len(values):
        return None
    orders: Counter[str] = Counter()
    for match in matches:
        orders[_order(match)] += 1
    year_first, day_first, month_first = (orders[name] for name in ("year", "day", "month"))
    sign = matches[0]["sign"]
    patterns = {order: _pattern(matches, order) for order in ("day", "month", "year")}
    days_only = not matches[0]["clock"]

    def written(order: str, why: str, doubt: str = "") -> Times:
        options = ("day", "month") if doubt else ()
        return Times(
            format=patterns[order],
            zoned=False,
            days_only=days_only,
            why=why,
            doubt=doubt,
            candidates=tuple(f'time_format = "{patterns[option]}"' for option in options),
        )

    if year_first:
        return written("year", "the year comes first")
    if day_first and month_first:
        doubt = f"{day_first} times have the day first and {month_first} the month"
        return written("day" if day_first >= month_first else "month", "", doubt)
    if month_first:
        return written("month", "the second number reaches above 12, so that it is the day")
    if sign == ".":
        return written("day", "between dots the day comes first")
    if day_first:
        return written("day", "the first number reaches above 12, so that it is the day")
    example = matches[0].group()
    return written("day", "", f"no number tells whether the day or the month comes first in {example}")


def _order(match: re.Match[str]) -> str:
    if len(match["a"]) == 4:
        return "year"
    if int(match["a"]) > 12:
        return "day"
    return "month" if int(match["b"]) > 12 else "either"


def _pattern(matches: Sequence[re.Match[str]], order: str) -> str:
    """Write Spark's pattern of dates. One letter reads one or two digits, so it is used where some have one."""
    first = matches[0]
    sign = first["sign"]
    years = first["a"] if order == "year" else first["c"]
    shorter = any(len(match[part]) == 1 for match in matches for part in "ab")
    day, month = ("d", "M") if shorter else ("dd", "MM")
    parts = {"day": (day, month, "y" * len(years)), "month": (month, day, "y" * len(years)),
             "year": ("yyyy", month, day)}[order]  # fmt: skip
    return sign.join(parts) + _clock_pattern(matches, first)


def _clock_pattern(matches: Sequence[re.Match[str]], first: re.Match[str]) -> str:
    if not first["clock"]:
        return ""
    letter = "h" if first["half"] else "H"
    hour = letter if any((match["clock"] or "00:").index(":") == 1 for match in matches) else letter * 2
    part = f".{'S' * (len(first['part']) - 1)}" if first["part"] else ""
    half = (" a" if first["half"].startswith(" ") else "a") if first["half"] else ""
    between = "'T'" if first["between"] == "T" else first["between"] or " "
    return f"{between}{hour}:mm{':ss' if first['second'] else ''}{part}{half}"


def read_time(value: str, *, unit: str, pattern: str, zone: str) -> datetime | None:
    """Read a time as a description says.

    Args:
        value: The time as written.
        unit: Unit of numbers.
        pattern: Spark's pattern of texts, or empty for ISO 8601.
        zone: Zone of times that name none.

    Returns:
        None if the value is no such time.
    """
    if pattern:
        return _zoned(_parsed(value, pattern), zone)
    if _NUMBER.fullmatch(value):
        try:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(value) / TIME_UNITS[unit])
        except OverflowError:
            return None
    match = _ISO.fullmatch(value)
    if not match:
        return None
    named, bare = match["zone"] or "", value
    if named and (named.isalpha() or "/" in named):
        if "/" not in named and named not in ("Z", "UTC", "GMT"):
            return None
        bare, zone = value.removesuffix(named).rstrip(), "UTC" if "/" not in named else named
    try:
        return _zoned(datetime.fromisoformat(re.sub(r" (?=[+-]\d{2}(:?\d{2})?$)", "", bare)), zone)
    except ValueError:
        return None


def _zoned(time: datetime | None, zone: str) -> datetime | None:
    return time.replace(tzinfo=ZoneInfo(zone)) if time and time.tzinfo is None else time


def _parsed(value: str, pattern: str) -> datetime | None:
    cut = re.sub(r"\.\d+(?=( ?[AaPp][Mm])?$)", "", value) if ".S" in pattern else value
    letters = re.sub(r"\.S+", "", pattern).replace("'T'", "T")
    python = re.sub(r"d+|M+|y+|H+|h+|m+|s+|a", lambda part: _PYTHON.get(part.group(), part.group()), letters)
    try:
        return datetime.strptime(cut, python)
    except ValueError:
        return None
