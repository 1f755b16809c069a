"""Describes how the records of a store's event log map to events.

A description is the section `[source]` of the settings. Without one, a log has the format of REES46.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal
from zoneinfo import available_timezones

from lambda_spark.errors import UsageError
from lambda_spark.event_format import EVENT_TYPES, FIELDS
from lambda_spark.ids import Ids

Format = Literal["", "csv", "json", "parquet", "delta"]
TimeUnit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds"]
OnUnknownEvent = Literal["reject", "ignore"]
Identical = Literal["drop", "keep"]

EVENT_ID = "event_id"
DESCRIBED_FIELDS = (*FIELDS, EVENT_ID)
"""The fields of an event that a description can map."""
IGNORE = "ignore"
"""Event type of records that are counted as ignored and not stored."""

TIME_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""The number of each unit in a second."""
FIRST_SECOND, LAST_SECOND = 946_684_800, 4_102_444_800
"""The beginnings of 2000 and 2100, in seconds since 1970.

Between them the four units have no number in common, so a time in the wrong unit is never taken for another time.
"""

NULLS = ("", "\\N", "NULL", "null", "nan", "NaN", "NA", "None", "undefined", "(not set)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDescription:
    """How the records of an event log are read, and which of their columns is which field of an event."""

    format: Format = ""
    """Format of all files: csv, json, parquet or delta. If empty, the file name extension decides."""
    delimiter: str = ","
    """Character between two columns of a CSV line, like `;` or `\\t` (a tab)."""
    quote: str = '"'
    """Character around CSV values that contain the delimiter."""
    escape: str = '"'
    """Character before a quote inside a quoted CSV value. The default is RFC 4180's doubled quote."""
    header: bool = True
    """Whether CSV files begin with a line of column names."""
    columns: tuple[str, ...] = ()
    """Column names of CSV files without a header line. If empty, the columns are those of REES46, in their order."""
    multiline: bool = False
    """Whether quoted CSV values may contain line ends, or a JSON value may span several lines."""
    encoding: str = "utf-8"
    """Character encoding of text files, like windows-1252."""
    time_unit: TimeUnit = "seconds"
    """Unit of times that are numbers, counted from 1970: seconds, milliseconds, microseconds or nanoseconds."""
    time_format: str = ""
    """Spark's pattern of times that are texts, like `dd.MM.yyyy HH:mm`. If empty, times follow ISO 8601."""
    time_zone: str = "UTC"
    """Zone of times that name none, as a region like Europe/Berlin."""
    nulls: tuple[str, ...] = NULLS
    """Texts that mean that a value is missing."""
    nobody: tuple[str, ...] = ()
    """User ids that mean nobody, like guest. Their events count by the session. Numbers below 1 always mean nobody."""
    decimal_comma: bool = False
    """Whether prices are written like 1.234,50."""
    explode: str = ""
    """Name or path of an array whose elements are an event each. In expressions the name means the element."""
    ids: Ids = "integer"
    """Kind of product and user ids: integer, or text for ids that are kept exactly as written. A lake has one kind."""
    on_unknown_event: OnUnknownEvent = "reject"
    """What happens to records whose event type is unknown: reject, or ignore (they are only counted)."""
    identical: Identical = "drop"
    """Whether a record that equals another is a repeat (drop), or an event of its own (keep)."""
    strict: bool = False
    """Whether a malformed optional field rejects the record. Otherwise the field is null, and the event counts."""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Our field = their column, path in JSON, or Spark SQL expression over their columns."""
    event_types: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Their event name = view, cart, remove_from_cart, purchase or ignore. If empty, their names are ours."""

    def __post_init__(self) -> None:
        for name in ("delimiter", "quote", "escape"):
            text = getattr(self, name)
            _require(len(text) == 1 or text == "\\t", f"source.{name} must be one character (or \\t), not '{text}'")
        _require(self.delimiter != self.quote, "source.delimiter and source.quote must differ")
        _check_encoding(self.encoding)
        _require(
            self.time_zone in available_timezones(),
            f"source.time_zone must be a region like Europe/Berlin, or UTC, not '{self.time_zone}'",
        )
        unknown = sorted(set(self.fields) - set(DESCRIBED_FIELDS))
        _require(
            not unknown,
            f"source.fields has no field '{', '.join(unknown)}'; the fields are {', '.join(DESCRIBED_FIELDS)}",
        )
        known = (*EVENT_TYPES, IGNORE)
        for theirs, ours in self.event_types.items():
            _require(
                ours in known, f"source.event_types: '{theirs}' must become one of {', '.join(known)}, not '{ours}'"
            )
        repeated = sorted({name for name in self.columns if self.columns.count(name) > 1})
        _require(not repeated, f"source.columns names '{', '.join(repeated)}' more than once")
        _require(
            not (self.columns and self.header),
            "source.columns is for files without a header: set source.header = false",
        )
        _require(not (self.explode and self.format == "csv"), "source.explode is for JSON and Parquet, not for CSV")

    @property
    def hash(self) -> str:
        """The first 16 hex digits of SHA-256 over all values. Equal descriptions have equal hashes."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_text(self) -> str:
        """Write the values that differ from the default as JSON, which `differences` reads back."""
        default = asdict(SourceDescription())
        return json.dumps({key: value for key, value in asdict(self).items() if value != default[key]}, sort_keys=True)


def differences(recorded: str, description: SourceDescription) -> list[str]:
    """List how a description differs from a recorded one.

    Args:
        recorded: What `as_text` returned for the recorded description.
        description: The description to compare.

    Returns:
        Texts like `delimiter: ',' → ';'`, one per value that differs.
    """
    default = json.loads(json.dumps(asdict(SourceDescription())))
    before, after = {**default, **json.loads(recorded)}, {**default, **json.loads(description.as_text())}
    return [f"source.{key}: {before[key]!r} → {after[key]!r}" for key in after if before.get(key) != after[key]]


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except LookupError:
        raise UsageError(f"source.encoding: there is no encoding '{encoding}'; write it like utf-8") from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


REES46 = SourceDescription()
"""The description of a log in the format of REES46."""
