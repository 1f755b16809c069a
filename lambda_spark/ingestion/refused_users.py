"""Users whose events are refused, kept without their ids. Pure, but for the reading of a users' list.

A user is remembered by a pseudonym, SHA-256 over the lake's salt and the id. The salt (16 random bytes, a property of
`refused_users`) makes pseudonyms of two lakes differ. Ids are numbers and can be tried one after the other, so whoever
has the lake can find out whether a given user is refused; nobody can do without that who is to refuse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import FIELDS

REFUSED = "user is refused"
"""The reason for rejection. The line itself is not kept."""

SALT = "salt"
"""Property of `refused_users`."""
REFUSING = "refuses_users"
"""Property of `events` once a user is refused: without the table nobody would be, in silence."""
FORGETTING = "forgetting"
"""Property of `events` once users were forgotten: what is to be known of that while it is pending, then empty."""

_WITH_EXPONENT = r"(\d+(?:\.\d+)?[eE]\+?\d{1,2})(?!\d)"
"""As JSON and Parquet readers write a whole number that was kept as a floating one."""
_NO_WHOLE_NUMBERS = r"\d{4}-\d\d-\d\d(?!\d)|(?<!\d)\d\d:\d\d(:\d\d)?(?!\d)|(?<=\d)\.\d+"
"""A date, a time of day, and what follows a decimal point."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Who is refused: the salt, and the pseudonyms in the one column `user`."""

    salt: str
    users: DataFrame


def pseudonym(user_id: int, salt: str) -> str:
    """Hex of SHA-256 over the salt, a colon and the id in decimal."""
    return hashlib.sha256(f"{salt}:{user_id}".encode()).hexdigest()


def pseudonym_of(user_id: Column, salt: str) -> Column:
    """As `pseudonym`, of a column of ids (numbers, or texts without leading zeros)."""
    return F.sha2(F.concat(F.lit(f"{salt}:"), user_id.cast("string")).cast("binary"), 256)


def users_named(raw: Column, salt: str) -> Column:
    """The pseudonyms of all whole numbers in a line as delivered, whatever they stand for there, but for the parts of
    dates and times.

    A line that is no event may have its user anywhere. NUL characters are left out, so that UTF-16 is read too.
    """
    text = F.translate(F.make_valid_utf8(raw), "\0", "")
    floating = F.transform(
        F.regexp_extract_all(text, F.lit(_WITH_EXPONENT), 1),
        lambda number: number.try_cast("decimal(38,0)").cast("string"),
    )
    digits = F.regexp_extract_all(F.regexp_replace(text, _NO_WHOLE_NUMBERS, " "), F.lit(r"0*(\d+)"), 1)
    numbers = F.array_distinct(F.concat(digits, F.array_compact(floating)))
    return F.transform(numbers, lambda number: pseudonym_of(number, salt))


def lines_naming(lines: DataFrame, key: str, users: DataFrame, salt: str) -> DataFrame:
    """The keys of the lines (column `raw`) that name one of some users (column `user`, pseudonyms)."""
    named = lines.select(key, F.explode(users_named(F.col("raw"), salt)).alias("user"))
    return named.join(F.broadcast(users), on="user", how="left_semi").select(key).distinct()


def refuse(inspected: DataFrame, refusals: Refusals) -> DataFrame:
    """Validated lines in which those of refused users are no events: REFUSED is their only reason, and their columns
    and `raw` are empty.

    `inspected` has `reasons`, `user_id`, and `raw` where there are reasons. A valid line is of the user it names as
    such, another of every number in it. Added is `mark`, hex of SHA-256 over the salt and the line for refused ones,
    which tells a repeat without telling the line.
    """
    salt = refusals.salt
    is_valid = F.size("reasons") == 0
    by_id = refusals.users.select(F.col("user").alias("pseudonym"), F.lit(True).alias("refused"))
    all_refused = refusals.users.agg(F.collect_set("user").alias("all_refused"))
    marked = (
        inspected.withColumn("pseudonym", F.when(is_valid, pseudonym_of(F.col("user_id"), salt)))
        .join(F.broadcast(by_id), on="pseudonym", how="left")
        .crossJoin(F.broadcast(all_refused))
    )
    is_named = ~is_valid & F.arrays_overlap(users_named(F.col("raw"), salt), "all_refused")
    is_refused = F.coalesce("refused", is_named, F.lit(False))
    line = F.when(is_valid, F.col("event_id").cast("binary")).otherwise(F.col("raw").cast("binary"))
    mark = F.sha2(F.concat(F.lit(f"{salt}:").cast("binary"), line), 256)
    told = [name for name in inspected.columns if name in (*FIELDS, "event_date", "event_id", "raw")]
    others = [name for name in inspected.columns if name not in (*told, "reasons")]
    marked = marked.withColumn("mark", F.when(is_refused, mark))
    hidden = F.col("mark").isNotNull()
    return marked.select(
        *others,
        F.when(hidden, F.array(F.lit(REFUSED))).otherwise(F.col("reasons")).alias("reasons"),
        *(F.when(~hidden, F.col(name)).alias(name) for name in told),
        "mark",
    )


def user_ids(lines: Iterable[str]) -> tuple[set[int], list[str]]:
    """The ids of a users' list, one in a line (a header line and empty ones count for nothing), and what is no id."""
    ids: set[int] = set()
    wrong = []
    for number, line in enumerate(lines):
        text = line.strip().strip('"')
        if text.isascii() and text.isdigit() and 0 < int(text) < 2**63:
            ids.add(int(text))
        elif text and not (number == 0 and text.lower() == "user_id"):
            wrong.append(f"line {number + 1}")
    return ids, wrong
