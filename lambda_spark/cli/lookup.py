"""`lookup`: the list that is written for a user, read with delta-rs, without starting Spark.

For whoever shows lists (a page, a mail): `recommend` writes them, this reads the newest version in a fraction of a
second, also while Spark writes the next.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError

from lambda_spark.cli.arguments import parse
from lambda_spark.errors import LakeError, LambdaSparkError, UsageError
from lambda_spark.storage.tables import RECOMMENDATIONS
from lambda_spark.text import clean, table

_SHOWN = ("rank", "product_id", "category_code", "brand", "price", "score", "reason")


def look_up(lake: str, user_id: int) -> list[dict[str, Any]]:
    """A user's list as it is written, by rank, with the columns of `recommendations`; empty where there is none.

    Raises LakeError where no lists have been written, or where they can't be read.
    """
    location = f"{lake}/{RECOMMENDATIONS.name}"
    failure = ""
    for _ in range(2):
        try:
            return _read(location, user_id)
        except TableNotFoundError:
            raise LakeError(f"{lake} has no lists: run `recommend` first (or `run`, or `demo`)") from None
        # A query that fails raises a plain Exception.
        except Exception as error:
            # It holds no lock: the version that it had opened may be replaced, and its files deleted, meanwhile.
            failure = str(error).splitlines()[0]
    raise LakeError(f"{location} can't be read: {failure}")


def _read(location: str, user_id: int) -> list[dict[str, Any]]:
    query = f"select * from lists where user_id = {int(user_id)} order by rank"
    rows = QueryBuilder().register("lists", DeltaTable(location)).execute(query).read_all()
    return [rows.to_struct_array()[at].as_py() for at in range(rows.num_rows)]


def main(arguments: list[str]) -> int:
    try:
        parsed = parse("lookup", arguments)
        if parsed.user is None:
            raise UsageError("whose list? name a --user")
        if ":/" not in parsed.lake and not os.path.isdir(parsed.lake):
            raise UsageError(f"{parsed.lake} is no lake yet: run `ingest` (or `run`, or `demo`) first")
        rows = look_up(parsed.lake, parsed.user)
    except LambdaSparkError as error:
        print(clean(f"lookup: {error}"), file=sys.stderr)
        return error.exit_code
    if parsed.json:
        print(json.dumps({"user_id": parsed.user, "recommendations": rows}, default=float))
    elif rows:
        print(table([{name: row[name] for name in _SHOWN} for row in rows], {"score": ".4f", "price": ".2f"}))
    else:
        print(
            f"no list is written for user {parsed.user}: never seen, or not in the last recommendations.active_days; "
            f"`recommend --user {parsed.user}` makes one"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
