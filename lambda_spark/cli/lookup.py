"""The `lookup` job. It reads a user's recommendations with delta-rs, a Delta reader that does not need Spark.

A web page or a mail program can call `lookup`, because the answer takes a fraction of a second. The job reads the
newest version that `recommend` wrote, even while Spark writes the next version.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Any, NamedTuple

from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError

from lambda_spark.cli.arguments import parse
from lambda_spark.errors import LakeError, LambdaSparkError, UsageError
from lambda_spark.ids import Id, user_id
from lambda_spark.storage.tables import RECOMMENDATIONS
from lambda_spark.text import strip_control_characters, table

_COLUMNS = ("rank", "product_id", "category_code", "brand", "price", "score", "reason")


class UsersList(NamedTuple):
    """A user's list of products, as the table `recommendations` has it."""

    user_id: Id
    rows: list[dict[str, Any]]
    """The rows of `recommendations` for this user, by rank. Empty if the table has no rows for the user."""


def look_up(lake: str, user: str) -> UsersList:
    """Read a user's list of products from the table `recommendations`.

    Args:
        lake: Path of the lake.
        user: Id of the user, as on the command line.

    Raises:
        UsageError: The text is no user id of this lake.
        LakeError: The table does not exist, or it can't be read.
    """
    location = f"{lake}/{RECOMMENDATIONS.name}"
    failure = ""
    for _ in range(2):
        try:
            return _read(location, user)
        except TableNotFoundError:
            raise LakeError(f"{lake} has no lists: run `recommend` first (or `run`, or `demo`)") from None
        except UsageError:
            raise
        # Catch every exception, because delta-rs raises a plain Exception for a failed query.
        except Exception as error:
            # Try once more, because this reader holds no lock. Another job may have replaced the version that this
            # reader opened, and have deleted its files.
            failure = str(error).splitlines()[0]
    raise LakeError(f"{location} can't be read: {failure}")


def _read(location: str, user: str) -> UsersList:
    lists = DeltaTable(location)
    types = {field.name: str(field.type.type) for field in lists.schema().fields}
    chosen = user_id(user, "text" if types["user_id"] == "string" else "integer")
    literal = str(chosen) if isinstance(chosen, int) else "'" + chosen.replace("'", "''") + "'"
    query = f"select * from lists where user_id = {literal} order by rank"
    rows = QueryBuilder().register("lists", lists).execute(query).read_all()
    return UsersList(chosen, [rows.to_struct_array()[at].as_py() for at in range(rows.num_rows)])


def main(arguments: list[str]) -> int:
    """Print a user's list of products as a table or as JSON.

    Args:
        arguments: The options of the command line.

    Returns:
        The exit code.
    """
    try:
        parsed = parse("lookup", arguments)
        if parsed.user is None:
            raise UsageError("no user is named: name a --user ID")
        if ":/" not in parsed.lake and not os.path.isdir(parsed.lake):
            raise UsageError(f"{parsed.lake} is no lake yet: run `ingest` (or `run`, or `demo`) first")
        found = look_up(parsed.lake, parsed.user)
    except LambdaSparkError as error:
        print(strip_control_characters(f"lookup: {error}"), file=sys.stderr)
        return error.exit_code
    if parsed.json:
        print(json.dumps({"user_id": found.user_id, "recommendations": found.rows}, default=float))
    elif found.rows:
        print(table([{name: row[name] for name in _COLUMNS} for row in found.rows], {"score": ".4f", "price": ".2f"}))
    else:
        user = strip_control_characters(str(found.user_id))
        print(
            f"no list is written for user {user}: the store never saw this user, or not in the last "
            f"recommendations.active_days; `recommend --user {shlex.quote(user)}` computes and prints one"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
