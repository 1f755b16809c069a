"""Finds out which column of a sample is which field, by the columns' names and by their values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lambda_spark.event_format import EVENT_TYPES
from lambda_spark.inspection.description import Doubt, assignment
from lambda_spark.inspection.judge import price_of
from lambda_spark.inspection.names import ORDER, QUANTITY, event_of, field_of, normal
from lambda_spark.inspection.sample import Sample
from lambda_spark.inspection.times import Times, times_of
from lambda_spark.source_description import DESCRIBED_FIELDS, NULLS

_MAX_EVENT_NAMES = 60
"""Largest number of values of a column of event names."""
_MOST_USERS = 0.7
"""Share of records with a user below which another column may stand for the user."""
_RARE = 0.005
"""Share of the records below which an unknown event name is a bad record."""
_IDS = ("product_id", "user_id")
_CURRENCY = re.compile(r"\s*[$€£¥]|[$€£¥]\s*$|\b[A-Z]{3}\b")


@dataclass(frozen=True)
class Column:
    """A column, or a path, with its values. Values that mean null are left out."""

    name: str
    values: list[str]
    total: int
    """Number of records."""
    is_path: bool = False
    """Whether dots in the name stand between the parts of a path."""

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each value stands in the column."""
        return Counter(self.values)

    @cached_property
    def times(self) -> Times | None:
        """How the column writes times, or None if it has none."""
        return times_of(self.values[:2000]) if self.values else None

    @property
    def filled(self) -> float:
        """Share of the records with a value."""
        return len(self.values) / self.total if self.total else 0.0

    def share(self, fits: Callable[[str], object]) -> float:
        """Share of the values that fulfil a condition."""
        return sum(bool(fits(value)) for value in self.values) / len(self.values) if self.values else 0.0

    @property
    def source(self) -> str:
        """The column as an expression names it."""
        parts = self.name.split(".") if self.is_path else [self.name]
        return ".".join(part if re.fullmatch(r"[A-Za-z_]\w*", part) else _in_backticks(part) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The expression that was chosen for a field."""

    field: str
    source: str
    why: str


def _in_backticks(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def columns_in(sample: Sample, explode: str) -> dict[str, Column]:
    """Gather the values of each column.

    Args:
        sample: The sample.
        explode: Path of the array that is exploded, or empty.
    """
    nulls = set(NULLS)
    rows = sample.rows(explode)
    gathered: dict[str, list[str]] = {name: [] for name in sample.columns if name != explode or not explode}
    for row in rows:
        for name, value in row.items():
            if value is not None and value.strip() not in nulls:
                gathered.setdefault(name, []).append(value.strip())
    is_path = sample.dialect.format != "csv"
    return {name: Column(name, values, len(rows), is_path) for name, values in gathered.items()}


def choose_fields(columns: Mapping[str, Column], explode: str) -> tuple[dict[str, Choice], list[Doubt]]:
    """Find out which column is which field.

    Args:
        columns: The columns of the sample.
        explode: Path of the array that is exploded, or empty. Its own columns come first.

    Returns:
        The fields that are sure, and the fields that are not.
    """
    choices: dict[str, Choice] = {}
    doubts: list[Doubt] = []
    for name in DESCRIBED_FIELDS:
        found = _named(name, columns, explode)
        if isinstance(found, Choice):
            choices[name] = found
        elif found:
            doubts.append(found)
    if "event_type" not in choices and not _is_open("event_type", doubts):
        orders = _orders(columns)
        if orders:
            choices["event_type"] = orders
        else:
            doubts.append(_unknown("event_type", columns))
    # A log of sessions needs no user.
    required = ("event_time", "product_id", *(() if "user_session" in choices else ("user_id",)))
    missing = [name for name in required if name not in choices and not _is_open(name, doubts)]
    return choices, doubts + [_unknown(name, columns) for name in missing]


def _is_open(field: str, doubts: Sequence[Doubt]) -> bool:
    return any((doubt.section, doubt.key) == ("fields", field) for doubt in doubts)


# --- By name ----------------------------------------------------------------------------------------------------------


def _named(name: str, columns: Mapping[str, Column], explode: str) -> Choice | Doubt | None:
    """Find the column whose name and values say that it is a field."""
    candidates = []
    for column in columns.values():
        found = _meaning(column)
        if found and found[0] == name and (not found[1] or _fits(name, column, found[1])):
            inside = bool(explode) and column.name.startswith(f"{explode}.")
            if name == "event_id" and explode and not inside:
                # Several events of one record would have the same id.
                continue
            candidates.append((not inside, found[1], column))
    if not candidates:
        return None
    candidates.sort(key=lambda candidate: candidate[:2])
    outside, rank, best = candidates[0]
    if rank == 0 and name == "event_time" and not best.times:
        example = next(iter(best.values), "")
        return Doubt(
            section="fields", key=name, why=f'{best.name} has no times of a kind that is known, like "{example}"'
        )
    equal = [one for one in candidates if one[0] == outside and (one[1] == rank or (rank and name in _IDS))]
    if len(equal) > 1:
        return _rivals(name, [column for *_, column in equal])
    if name == "user_id" and best.filled < _MOST_USERS and len(candidates) > 1:
        return _second_user(best, candidates[1][2])
    return Choice(field=name, source=_expression(name, best), why=_why(name, best, rank))


def _meaning(column: Column) -> tuple[str, int] | None:
    """Return the field that a column's name means, and how sure the name is."""
    found = field_of(column.name)
    # A category that is a number is an id, and no path.
    if found and found[0] == "category_code" and found[1] and column.share(str.isdigit) > 0.9:
        return ("category_id", found[1])
    return found


def _rivals(name: str, columns: Sequence[Column]) -> Doubt:
    names = " and ".join(column.name for column in columns)
    return Doubt(
        section="fields",
        key=name,
        why=f"{names} may each be the {name}",
        candidates=tuple(assignment(name, column.source) for column in columns),
    )


def _second_user(best: Column, other: Column) -> Doubt:
    return Doubt(
        section="fields",
        key="user_id",
        why=f"{best.name} is empty in {1 - best.filled:.0%} of the records, and {other.name} may stand for it",
        candidates=(
            assignment("user_id", best.source),
            assignment("user_id", f"coalesce({best.source}, {other.source})"),
        ),
    )


def _fits(name: str, column: Column, rank: int) -> bool:
    """Return whether the values of a column are such as a field has."""
    if not column.values:
        return False
    if name == "event_time":
        return column.times is not None
    if name == "event_type":
        return _is_event_type(column, rank)
    if name == "price":
        # A number of pieces is called an amount, too, but it has no decimals.
        return column.share(_amount) > 0.5 and (rank < 2 or column.share(lambda value: re.search(r"[.,]\d", value)) > 0)
    if name == "event_id":
        return column.filled > 0.9 and len(column.counts) == len(column.values)
    if name == "user_session":
        return column.filled > (0.5 if rank == 1 else 0.9)
    if name == "product_id":
        return column.filled > 0.5 and (len(column.counts) > 1 or column.total < 6)
    return name != "brand" or column.share(lambda value: re.search(r"[^\W\d_]", value)) > 0.5


def _is_event_type(column: Column, rank: int) -> bool:
    known = column.share(event_of)
    few = len(column.counts) <= _MAX_EVENT_NAMES and len(column.counts) <= max(6, column.total / 4)
    numbers = column.share(re.compile(r"[-\d.]+").fullmatch) > 0.5
    return known > 0.5 or (few and not numbers and rank == 1) or (few and known > 0)


def _amount(value: str) -> bool:
    bare = _CURRENCY.sub("", value).strip()
    return any(price_of(bare, decimal_comma=comma) is not None for comma in (False, True))


def _expression(name: str, column: Column) -> str:
    if name == "price" and column.share(_CURRENCY.search) > 0.5:
        return f"regexp_replace({column.source}, '[^0-9.,-]', '')"
    return column.source


def _why(name: str, column: Column, rank: int) -> str:
    by_name = "has the field's own name" if rank == 0 else "is a known name of it"
    if name == "event_time" and column.times:
        return f"{by_name}; {column.times.why}"
    if name in _IDS or name in ("user_session", "event_id"):
        return f"{by_name}; {len(column.counts):,} different in {len(column.values):,}"
    return by_name


# --- Without a name ---------------------------------------------------------------------------------------------------


def _orders(columns: Mapping[str, Column]) -> Choice | None:
    """Decide that a log without event names is one of orders, where two of its columns only such a log has."""
    names = {normal(name.split(".")[-1]): column for name, column in columns.items()}
    order = next((column for name, column in names.items() if any(word in name for word in ORDER)), None)
    amounts = [column for name, column in names.items() if name in QUANTITY]
    prices = [column for column in columns.values() if (field_of(column.name) or ("",))[0] == "price"]
    if order is None or not (amounts or prices):
        return None
    evidence = (amounts or prices)[0]
    why = f"there are no event names, and {order.name} and {evidence.name} are columns of orders"
    if amounts and amounts[0].share(lambda value: value.startswith("-")):
        source = f"case when try_cast({amounts[0].source} as double) <= 0 then 'ignore' else 'purchase' end"
        return Choice(field="event_type", source=source, why=f"{why}; what came back has {amounts[0].name} below 0")
    return Choice(field="event_type", source="'purchase'", why=why)


def _unknown(name: str, columns: Mapping[str, Column]) -> Doubt:
    """List the columns whose values may be a field, because no name says so."""
    found = [column for column in columns.values() if column.name and column.values and _may_be(name, column)]
    candidates = [assignment(name, column.source) for column in found]
    if name == "event_type":
        candidates += [assignment(name, "'view'"), assignment(name, "'purchase'")]
    return Doubt(
        section="fields",
        key=name,
        why=f"no column has a name that is known for {name}",
        candidates=tuple(candidates) or (assignment(name, "NAME OF A COLUMN"),),
    )


def _may_be(name: str, column: Column) -> bool:
    known = field_of(column.name)
    if name == "event_time":
        return column.times is not None
    if name == "event_type":
        return column.share(event_of) > 0.5 or (
            1 < len(column.counts) <= 12 and column.share(str.isalpha) > 0.8 and column.total > 12
        )
    is_word = column.share(lambda value: not re.search(r"\s", value)) > 0.9
    is_amount = column.share(re.compile(r"-?\d+[.,]\d{1,2}").fullmatch) > 0.5
    return is_word and not is_amount and known is None and column.times is None and column.share(event_of) < 0.5


# --- Event names ------------------------------------------------------------------------------------------------------


def event_names(counts: Mapping[str, int]) -> tuple[dict[str, str], list[Doubt]]:
    """Find out what a log's event names mean.

    Args:
        counts: Number of records by event name.

    Returns:
        Our event type, or `ignore`, by name; and the names that are not sure.
    """
    meanings: dict[str, str] = {}
    doubts: list[Doubt] = []
    every = (*EVENT_TYPES, "ignore")
    for word, number in counts.items():
        found = event_of(word)
        if found and not found[1]:
            meanings[word] = word if word in EVENT_TYPES else found[0]
            continue
        if not found and number < _RARE * sum(counts.values()):
            # A word that hardly ever stands there is a bad record.
            continue
        options = (found[0], "ignore") if found else every
        what = "a word of another language" if found else "no word that is known"
        doubts.append(
            Doubt(
                section="event_types",
                key=word,
                why=f'"{word}" ({number:,} {"record" if number == 1 else "records"}) is {what}',
                candidates=tuple(assignment(word, option) for option in options),
            )
        )
    return meanings, doubts
