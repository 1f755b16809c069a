"""Judges a description by a sample: which records would be events, and why the others would not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb

from lambda_spark.event_format import EVENT_TYPES
from lambda_spark.inspection.sample import Row, Sample
from lambda_spark.inspection.times import EARLIEST, LATEST, read_time
from lambda_spark.settings import IngestSettings
from lambda_spark.source_description import DESCRIBED_FIELDS, IGNORE, SourceDescription

_MAX_ID = 2**63
_LONG = 40
"""Number of characters of an expression from which on a reason names the field instead."""
_PART = r"(?:`(?:[^`]|``)+`|[A-Za-z_]\w*)"
_NAME = re.compile(rf"{_PART}(?:\.{_PART})*")
"""A column or a path in an expression."""
_TOKEN = re.compile(rf"'(?:[^']|'')*'|{_NAME.pattern}(?:\s*\()?|.", re.DOTALL)
_KEYWORDS = frozenset(
    ["case", "when", "then", "else", "end", "and", "or", "not", "is", "null", "in", "like", "rlike", "between", "as"]
)
_TYPES = frozenset(["bigint", "int", "double", "string", "date", "timestamp", "decimal", "boolean"])
_MACROS = (
    "create macro unix_millis(t) as epoch_ms(t)",
    "create macro try_to_timestamp(t) as try_cast(t as timestamp)",
    "create macro spark_concat(a, b) as a || b, (a, b, c) as a || b || c, (a, b, c, d) as a || b || c || d",
    "create macro spark_replace(t, p, r) as regexp_replace(t, p, r, 'g')",
)
"""Functions of Spark for DuckDB. `concat` and `regexp_replace` differ: nulls, and how often."""
_RENAMED = {"concat": "spark_concat", "regexp_replace": "spark_replace"}


class UnknownColumnError(Exception):
    """A description names a column that the sample does not have."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What would become of a sample's records."""

    records: int = 0
    events: int = 0
    repeats: int = 0
    ignored: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Number of records by reason."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first value that was rejected, by reason."""
    nulled: Counter[str] = field(default_factory=Counter)
    """Number of values of optional fields that make no sense and become null, by field."""
    event_types: Counter[str] = field(default_factory=Counter)
    """Number of events by our event type."""
    mapped: list[Row] = field(default_factory=list)
    """The records as our fields, before they are checked."""

    @property
    def used_share(self) -> float:
        """Share of the records that are not rejected."""
        return (self.events + self.repeats + self.ignored) / self.records if self.records else 0.0


def judge(sample: Sample, description: SourceDescription) -> Verdict:
    """Find out what would become of a sample's records.

    Raises:
        UnknownColumnError: The description names a column that the sample does not have.
    """
    sources = sources_of(sample, description)
    verdict = Verdict(mapped=mapped_rows(sample, description, sources))
    known: set[tuple[str | None, ...]] = set()
    now = datetime.now(UTC) + IngestSettings().max_ahead
    for reason, number in sample.unreadable.items():
        verdict.rejected[reason] += number
    verdict.records = len(verdict.mapped) + sample.unreadable.total()
    for row in verdict.mapped:
        event = event_type_of(row, description)
        if event == IGNORE:
            verdict.ignored += 1
            continue
        reason, value = _reason(row, event, description, sources, now)
        if reason:
            verdict.rejected[reason] += 1
            verdict.examples.setdefault(reason, value)
            continue
        key = (row["event_id"],) if row["event_id"] else tuple(row[name] for name in DESCRIBED_FIELDS)
        if key in known and description.identical == "drop":
            verdict.repeats += 1
            continue
        known.add(key)
        verdict.events += 1
        verdict.event_types[str(event)] += 1
        verdict.nulled.update(_senseless(row, description))
    return verdict


# --- From records to our fields ---------------------------------------------------------------------------------------


def sources_of(sample: Sample, description: SourceDescription) -> dict[str, str]:
    """Return the expression of each field: the description's, else a column of the field's own name."""
    columns = columns_of(sample, description)
    sources = {name: name for name in DESCRIBED_FIELDS if _resolved(name, columns) is not None}
    return {name: source for name, source in {**sources, **description.fields}.items() if source}


def columns_of(sample: Sample, description: SourceDescription) -> tuple[str, ...]:
    """Return the columns, or paths, that expressions of a description may name."""
    if description.format == "csv" and not description.header:
        return description.columns or sample.columns
    if description.explode:
        return tuple(dict.fromkeys(path for row in sample.rows(description.explode) for path in row))
    return sample.columns


def mapped_rows(sample: Sample, description: SourceDescription, sources: Mapping[str, str]) -> list[Row]:
    """Return the records as our fields, each a text or None, as the expressions say."""
    rows = sample.rows(description.explode)
    columns = columns_of(sample, description)
    if description.format == "csv" and not description.header and description.columns:
        if len(description.columns) != len(sample.columns):
            raise UnknownColumnError(f"{len(description.columns)} columns")
        rows = [dict(zip(columns, row.values(), strict=True)) for row in rows]
    nulls = set(description.nulls)
    is_table = description.format == "csv"
    mapped: list[Row] = [dict.fromkeys(DESCRIBED_FIELDS) for _ in rows]
    computed: dict[str, str] = {}
    for name, source in sources.items():
        column = _resolved(source, columns)
        if column is None:
            computed[name] = source
            continue
        for target, row in zip(mapped, rows, strict=True):
            target[name] = _cleaned(row.get(column), nulls)
    for name, values in _computed(computed, rows, columns, nulls, is_table).items():
        for target, value in zip(mapped, values, strict=True):
            target[name] = value
    return mapped


def bare_name(source: str) -> str:
    """Return the column or path that an expression is, without backticks. Other expressions stay as they are."""
    if not _NAME.fullmatch(source):
        return source
    parts = re.findall(_PART, source)
    return ".".join(part[1:-1].replace("``", "`") if part[0] == "`" else part for part in parts)


def _resolved(name: str, columns: Sequence[str]) -> str | None:
    """Find the column that a name means: the same name, else the same but for case."""
    bare = bare_name(name)
    if bare in columns:
        return bare
    return next((column for column in columns if column.lower() == bare.lower()), None)


def _cleaned(value: str | None, nulls: set[str]) -> str | None:
    if value is None or (stripped := value.strip()) in nulls:
        return None
    return value if len(stripped) == len(value) else stripped


def _computed(
    expressions: Mapping[str, str], rows: Sequence[Row], columns: Sequence[str], nulls: set[str], is_table: bool
) -> dict[str, list[str | None]]:
    """Compute expressions of Spark SQL over the records, by DuckDB."""
    if not expressions:
        return {}
    used: set[str] = set()
    written = [_for_duckdb(source, columns, used, is_table) for source in expressions.values()]
    # Pass the columns as lists, because pyarrow would load pandas for them, which takes longer than all the rest.
    names = sorted(used)
    columns_of_lists = ", ".join(f"unnest(?::varchar[]) as {_quoted(name)}" for name in names)
    lists: list[Any] = [[None if row.get(name) is None else str(row[name]) for row in rows] for name in names]
    values = ", ".join(f"cast({expression} as varchar)" for expression in written)
    table = f"select {columns_of_lists}" if names else f"select range from range({len(rows)})"
    with duckdb.connect() as connection:
        for macro in _MACROS:
            connection.execute(macro)
        found = connection.execute(f"select {values} from ({table})", lists).fetchall()
    return {name: [_cleaned(line[index], nulls) for line in found] for index, name in enumerate(expressions)}


def _for_duckdb(expression: str, columns: Sequence[str], used: set[str], is_table: bool) -> str:
    """Write an expression of Spark SQL as one of DuckDB, with the names of columns in its quotes."""

    def rewritten(match: re.Match[str]) -> str:
        token = match.group()
        if token.endswith("("):
            name = token[:-1].strip()
            return f"{_RENAMED.get(name.lower(), name)}("
        if not re.match(r"[A-Za-z_`]", token):
            return token
        column = _resolved(token, columns)
        if column is not None:
            used.add(column)
            return _quoted(column)
        if token.lower() in _KEYWORDS | _TYPES:
            return token
        if is_table:
            raise UnknownColumnError(token)
        return "null"

    return _TOKEN.sub(rewritten, expression)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- From our fields to a verdict -------------------------------------------------------------------------------------


def event_type_of(row: Row, description: SourceDescription) -> str | None:
    """Return the event type of a record, `ignore`, or None for an unknown or missing one."""
    value = row["event_type"]
    if value == IGNORE:
        return IGNORE
    if description.event_types:
        value = description.event_types.get(value or "")
    elif value not in EVENT_TYPES:
        value = None
    unknown = IGNORE if description.on_unknown_event == IGNORE and row["event_type"] else None
    return value or unknown


def _reason(
    row: Row, event: str | None, description: SourceDescription, sources: Mapping[str, str], now: datetime
) -> tuple[str, str]:
    """Return why a record is no event, and the value that is wrong. Both are empty for an event."""

    def label(name: str) -> str:
        source = sources.get(name, name)
        return bare_name(source) if len(source) < _LONG else name

    for name in ("event_type", "event_time", "product_id"):
        if name not in sources:
            return f"no column is chosen for {name}", ""
    if row["event_type"] is None or event is None:
        return _wrong(label("event_type"), row["event_type"], "is no event type that is known")
    if (time := row["event_time"]) is None:
        return f"{label('event_time')} is missing", ""
    moment = read_time(time, unit=description.time_unit, pattern=description.time_format, zone=description.time_zone)
    if moment is None:
        return f"{label('event_time')} is no time {_way_of_times(description)}", time
    if moment < EARLIEST:
        return f"{label('event_time')} is before 2000 in {description.time_unit}", time
    if moment > min(now, LATEST):
        return f"{label('event_time')} is in the future", time
    product, user = row["product_id"], row["user_id"]
    if product is None:
        return f"{label('product_id')} is missing", ""
    if is_nobody(user, description) and row["user_session"] is None:
        return f"{label('user_id')} is missing, and there is no session", ""
    for name, value in (("product_id", product), ("user_id", None if is_nobody(user, description) else user)):
        if value is not None and description.ids == "integer" and (fault := integer_fault(value)):
            return f"{label(name)} {fault}", value
    return "", ""


def _way_of_times(description: SourceDescription) -> str:
    if description.time_format:
        return f"in the format {description.time_format}"
    return f"in {description.time_unit}{' or in ISO 8601' if description.time_unit == 'seconds' else ''}"


def _wrong(label: str, value: str | None, what: str) -> tuple[str, str]:
    return (f"{label} is missing", "") if value is None else (f"{label} {what}", value)


def is_nobody(user: str | None, description: SourceDescription) -> bool:
    """Return whether a user id means a guest."""
    return user is None or user in description.nobody


def integer_fault(value: str) -> str:
    """Return why a value is no id among whole numbers, or an empty text."""
    if re.fullmatch(r"\d+\.0+|\d(\.\d+)?[eE]\+?\d+", value):
        number = float(value)
        return "" if 0 < number < 2**53 and number.is_integer() else "is no exact whole number"
    if not re.fullmatch(r"[+-]?\d+", value):
        return 'is no whole number; write ids = "text"'
    if value[0] == "+" or (value[0] == "0" and len(value) > 1):
        return 'begins with a zero or a plus sign; write ids = "text"'
    return "" if 0 < int(value) < _MAX_ID else "is not between 1 and 2^63"


def price_of(value: str, *, decimal_comma: bool) -> float | None:
    """Read a price, or return None if it is none."""
    text = value.replace(".", "").replace(",", ".") if decimal_comma else value
    return float(text) if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text) else None


def _senseless(row: Row, description: SourceDescription) -> list[str]:
    """Return the optional fields whose values make no sense."""
    faults = []
    if (price := row["price"]) is not None:
        number = price_of(price, decimal_comma=description.decimal_comma)
        if number is None or number < 0:
            faults.append("price")
    # A spreadsheet turns a long number into one with an exponent, whose last digits are lost.
    if re.fullmatch(r"\d[.,]\d+E\+\d+", row["category_id"] or ""):
        faults.append("category_id")
    return faults
