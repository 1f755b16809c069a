"""Refused users: ingestion rejects their lines and stores their ids only as pseudonyms.

The pseudonym of a user is SHA-256 over the lake's salt and the user's id. The salt has 16 random bytes and is a
property of the table `refused_users`. Because of the salt, the same user has different pseudonyms in two lakes.

Anyone who has the lake can test whether a given user is refused, because user ids can be tried one by one. This cannot
be prevented, because ingestion itself needs the same test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import FIELDS
from lambda_spark.ids import Id, Ids, parse_id
from lambda_spark.spark import ids_of

REFUSED = "user is refused"
"""Reason for the rejection of a refused user's line. The line itself is not stored."""

SALT = "salt"
"""Property of `refused_users` that holds the salt."""
REFUSING = "refuses_users"
"""Property of `events` that is set when the first user is refused.

If this property is set but the table `refused_users` is missing, the table was lost, and ingestion stops. Otherwise,
ingestion would silently accept the lines of refused users.
"""
FORGETTING = "forgetting"
"""Property of `events` that is set when the first users are forgotten.

The property holds the state of a `forget` job while the job runs. It is empty when the job has finished.
"""

_WITH_EXPONENT = r"(\d+(?:\.\d+)?[eE]\+?\d{1,2})(?!\d)"
"""Pattern of a number with an exponent. Spark writes an id like this if a file stores the id as a float."""
_NO_WHOLE_NUMBERS = r"\d{4}-\d\d-\d\d(?!\d)|(?<!\d)\d\d:\d\d(:\d\d)?(?!\d)|(?<=\d)\.\d+"
"""Pattern of digits that are not a whole number: a date, a time of day, or the digits after a decimal point."""
_QUOTED = r"\"((?:[^\"\\]++|\"\"|\\.)*+)\"?"
"""Pattern of what stands between two double quotes. A quote within is doubled, as in CSV, or escaped, as in JSON.

Nothing in the pattern makes Java go back or recurse. Otherwise a long line could overflow its stack or take hours.
"""
_BETWEEN_FIELDS = r"[\",;|\t\r\n{}\[\]]+"
"""Pattern of the characters that separate fields in CSV and JSON. A colon is none, because ids may be like `gid://a/1`."""
_BETWEEN_WORDS = r"[\s\",;|:='(){}\[\]<>]+"
"""Pattern of the characters that separate words, for a line with other separators than those of its format."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Refused users: the salt, and the users' pseudonyms in the single column `user`."""

    salt: str
    users: DataFrame


def pseudonym(user_id: Id, salt: str) -> str:
    """Compute the pseudonym of a user: hex of SHA-256 over the salt, a colon and the id."""
    return hashlib.sha256(f"{salt}:{user_id}".encode()).hexdigest()


def pseudonym_of(user_id: Column, salt: str) -> Column:
    """Compute the pseudonyms of a column of ids, with the same result as `pseudonym`.

    Args:
        user_id: Ids as numbers or as texts. A text of a number must have no leading zeros.
        salt: The lake's salt.
    """
    return F.sha2(F.concat(F.lit(f"{salt}:"), user_id.cast("string")).cast("binary"), 256)


def users_named(raw: Column, salt: str, ids: Ids = "integer") -> Column:
    """Compute the pseudonym of everything in a line that may be a user id.

    An invalid line may have its user's id anywhere. So every whole number may be a user id, except numbers in dates and
    times. Where ids are texts, every field and every word may be one too, and so may the digits of every number with
    its leading zeros. NUL characters are removed first, so that ids in UTF-16 text are found too.

    Args:
        raw: The line as delivered.
        salt: The lake's salt.
        ids: The kind of the lake's ids.

    Returns:
        An array of distinct pseudonyms.
    """
    text = F.translate(F.make_valid_utf8(raw), "\0", "")
    floating = F.transform(
        F.regexp_extract_all(text, F.lit(_WITH_EXPONENT), 1),
        lambda number: number.try_cast("decimal(38,0)").cast("string"),
    )
    undated = F.regexp_replace(text, _NO_WHOLE_NUMBERS, " ")
    digits = F.regexp_extract_all(undated, F.lit(r"0*(\d+)"), 1)
    found = F.concat(digits, F.array_compact(floating), *(_text_ids(text, undated) if ids == "text" else ()))
    return F.transform(F.array_distinct(found), lambda user_id: pseudonym_of(user_id, salt))


def _text_ids(text: Column, undated: Column) -> Iterator[Column]:
    """Find the texts of a line that may be user ids.

    Args:
        text: The line.
        undated: The line without dates and times.

    Yields:
        Arrays of texts.
    """
    yield F.regexp_extract_all(undated, F.lit(r"\d+"), 0)
    yield F.split(undated, _BETWEEN_WORDS)
    quoted = F.regexp_extract_all(text, F.lit(_QUOTED), 1)
    yield F.transform(quoted, lambda field: F.replace(field, F.lit('""'), F.lit('"')))
    # A colon stands before a value of JSON that has no quotes. `\/` is a slash in JSON.
    for line in (text, F.replace(text, F.lit("\\/"), F.lit("/"))):
        yield F.transform(F.split(line, _BETWEEN_FIELDS), lambda field: F.trim(field, F.lit(" :")))
    values = F.map_values(F.from_json(text, "map<string,string>"))
    yield F.coalesce(F.array_compact(values), F.array().cast("array<string>"))


def lines_naming(lines: DataFrame, key: str, users: DataFrame, salt: str, ids: Ids) -> DataFrame:
    """Find the lines that contain the id of one of the given users.

    Args:
        lines: Lines with the column `raw` and a key column.
        key: Name of the column that identifies a line.
        users: Pseudonyms of the users, in the column `user`. Spark broadcasts this DataFrame, so it must be small.
        salt: The salt of these pseudonyms.
        ids: The kind of the lake's ids.

    Returns:
        The distinct keys of the lines found, in a column named as `key` says.
    """
    named = lines.select(key, F.explode(users_named(F.col("raw"), salt, ids)).alias("user"))
    return named.join(F.broadcast(users), on="user", how="left_semi").select(key).distinct()


def refuse(inspected: DataFrame, refusals: Refusals) -> DataFrame:
    """Reject the lines of refused users and remove their content.

    A valid line belongs to the user in `user_id`. An invalid line belongs to every user whom it names (`users_named`).

    Args:
        inspected: Validated lines with `reasons`, `user_id` and `event_id`, and with `raw` for lines that have reasons.
        refusals: The refused users.

    Returns:
        The same lines with the column `mark`, a hash that identifies a repeated line without revealing the line. A
        refused line has REFUSED as its only reason, and its fields and `raw` are null. Its `mark` is hex of SHA-256
        over the salt and the line, or over the salt and `event_id` if the line is a valid event. `mark` is null for
        all other lines.
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
    named = users_named(F.col("raw"), salt, ids_of(inspected, "user_id"))
    is_named = ~is_valid & F.arrays_overlap(named, "all_refused")
    is_refused = F.coalesce("refused", is_named, F.lit(False))
    line = F.when(is_valid, F.col("event_id").cast("binary")).otherwise(F.col("raw").cast("binary"))
    mark = F.sha2(F.concat(F.lit(f"{salt}:").cast("binary"), line), 256)
    revealing = [name for name in inspected.columns if name in (*FIELDS, "event_date", "event_id", "raw")]
    others = [name for name in inspected.columns if name not in (*revealing, "reasons")]
    marked = marked.withColumn("mark", F.when(is_refused, mark))
    is_hidden = F.col("mark").isNotNull()
    return marked.select(
        *others,
        F.when(is_hidden, F.array(F.lit(REFUSED))).otherwise(F.col("reasons")).alias("reasons"),
        *(F.when(~is_hidden, F.col(name)).alias(name) for name in revealing),
        "mark",
    )


def user_ids(lines: Iterable[str], ids: Ids) -> tuple[set[Id], list[str]]:
    """Parse a list of users with one id per line.

    Args:
        lines: Lines of the list. A header line `user_id` and empty lines are ignored. An id may stand between double
            quotes, in which a quote within is doubled.
        ids: The kind of the lake's ids.

    Returns:
        The ids, and the places of the lines that hold no valid id. A place is a text like `line 3`.
    """
    found: set[Id] = set()
    wrong = []
    for number, line in enumerate(lines):
        text = _unquoted(line.strip())
        user_id = parse_id(text, ids)
        if not text or (number == 0 and text.lower() == "user_id"):
            continue
        if user_id is None:
            wrong.append(f"line {number + 1}")
        else:
            found.add(user_id)
    return found, wrong


def _unquoted(text: str) -> str:
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"') if is_quoted else text
