"""What a person should know about a log before ingesting it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence

from lambda_spark.inspection.judge import is_nobody
from lambda_spark.inspection.sample import Number, Row, Sample
from lambda_spark.inspection.times import times_of
from lambda_spark.source_description import SourceDescription

_BUSY_USER = 0.05
"""Share of the records above which one user is named."""
_FEW_RECORDS = 10
"""Smallest number of records of a user who is named."""
_GUESTS = 0.3
_REPEATS = 0.01
_EXACT = 2**53
"""Whole numbers above are not exact in programs that read JSON's numbers as floats."""


def warnings_of(
    sample: Sample, description: SourceDescription, mapped: Sequence[Row], open_fields: Container[str] = ()
) -> list[str]:
    """List what is unusual in a sample.

    Args:
        sample: The sample.
        description: The description by which it is read.
        mapped: The records as our fields.
        open_fields: Fields that are not decided.
    """
    users = _users(mapped, description) if "user_id" not in open_fields else ()
    found = [*users, *_sessions(mapped), *_ids(sample, mapped), *_times(mapped, description)]
    return [*found, *_repeats(sample, description)]


def _users(mapped: Sequence[Row], description: SourceDescription) -> Iterator[str]:
    users = Counter(row["user_id"] for row in mapped if not is_nobody(row["user_id"], description))
    guests = len(mapped) - users.total()
    if guests > _GUESTS * len(mapped):
        yield (
            f"{guests / len(mapped):.0%} of the records have no user: with a session they count as guests, who get no "
            "list; without one they are rejected"
        )
    for user, number in users.most_common(1):
        if number > _BUSY_USER * len(mapped) and number >= _FEW_RECORDS:
            yield (
                f'one user, "{user}", has {number / len(mapped):.0%} of the records: a bot, a test account, or a value '
                "that means nobody (then add it to nobody)"
            )


def _sessions(mapped: Sequence[Row]) -> Iterator[str]:
    users = defaultdict(set)
    for row in mapped:
        if row["user_session"] is not None and row["user_id"] is not None:
            users[row["user_session"]].add(row["user_id"])
    shared = [session for session, those in users.items() if len(those) > 1]
    if shared:
        yield (
            f'{len(shared):,} of {len(users):,} sessions have several users, like "{shared[0]}": each user\'s '
            "part is a basket of its own"
        )


def _ids(sample: Sample, mapped: Sequence[Row]) -> Iterator[str]:
    for name in ("product_id", "user_id"):
        values = [value for row in mapped if (value := row[name]) is not None]
        zeros = [value for value in values if re.fullmatch(r"\+\d+|0\d+", value)]
        if zeros:
            yield (
                f'{name}: {len(zeros):,} ids begin with a zero or a plus sign, like "{zeros[0]}": ids = "text" keeps '
                "them, whole numbers would merge them"
            )
        floats = [value for value in values if re.fullmatch(r"\d+\.0+|\d\.?\d*[eE]\+?\d+", value)]
        if floats:
            yield (
                f'{name}: {len(floats):,} ids are written as floats, like "{floats[0]}": export them as whole numbers, '
                "because long ones lose their last digits"
            )
        large = [value for value in values if isinstance(value, Number) and _is_large(value)]
        if large and sample.dialect.format == "json":
            yield (
                f"{name}: {len(large):,} ids are JSON numbers above 2^53, like {large[0]}: many programs round them; "
                "write them as texts"
            )


def _is_large(value: str) -> bool:
    return value.isdigit() and int(value) > _EXACT


def _times(mapped: Sequence[Row], description: SourceDescription) -> Iterator[str]:
    times = times_of([row["event_time"] for row in mapped[:2000] if row["event_time"]])
    if times is None or times.zoned or times.unit:
        return
    if times.days_only:
        what = "days without a time of day: the order of a user's events on a day is not known"
    else:
        what = "without a zone"
    yield f"times are {what}; they are taken as {description.time_zone} (time_zone)"


def _repeats(sample: Sample, description: SourceDescription) -> Iterator[str]:
    lines = Counter(tuple(row.items()) for row in sample.rows(description.explode))
    repeats = lines.total() - len(lines)
    if repeats > _REPEATS * lines.total():
        yield (
            f"{repeats / lines.total():.0%} of the records are exact copies of others"
            + (": they count" if description.identical == "keep" else ': they are dropped, unless identical = "keep"')
        )
