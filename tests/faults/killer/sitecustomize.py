"""A module that kills the process that imports it, when the process reaches a named point.

Put this folder first on PYTHONPATH and set KILL_AT to the point. The point `before TABLE N` is just
before this process makes its N-th commit to the table. The point `after TABLE N` is just after this commit. Python
imports a module of this name when it starts. So a test can run the real command, and the job's code needs no hook.
"""

import os
import signal
import time
from collections import Counter

COMMITS = (
    "create", "append", "replace", "replace_where", "overwrite", "set_properties", "rewrite_dates", "delete",
    "delete_keys", "compact", "note",
)  # fmt: skip
"""Names of the methods of `TableHandle` that make a commit to a table."""

CONCURRENT = (
    {"events", "rejected_events"},
    {"co_interactions", "baskets"},
    {"demand", "trends", "category_trends", "brand_trends"},
)
"""Groups of tables that a job writes in parallel.

If the process is killed at a commit to one table, the commits to the other tables of the group are delayed. Otherwise
chance would decide whether these commits happen before the kill."""
DELAY = 20.0
"""Seconds by which such a commit is delayed, enough for one other commit. The delay must end, because the point of the
kill may already have passed."""


def _die() -> None:
    # Kill the whole process group, so that the JVM, Python and their children end at once, as when a machine fails.
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _patched(commit, begun: Counter, moment: str, table: str, number: int):
    def committed(handle, *arguments, **named):
        if commit.__name__ == "create" and handle.exists():
            # If the table exists, this method makes no commit.
            return
        is_concurrent = handle.name != table and any({handle.name, table} <= group for group in CONCURRENT)
        if is_concurrent and commit.__name__ in ("append", "replace", "replace_where"):
            time.sleep(DELAY)
        begun[handle.name] += 1
        is_at_point = handle.name == table and begun[handle.name] == number
        if is_at_point and moment == "before":
            _die()
        commit(handle, *arguments, **named)
        if is_at_point and moment == "after":
            _die()

    return committed


# Kill only Spark's driver process. Spark's launcher also imports this module, but the launcher has no gateway port.
if "KILL_AT" in os.environ and "PYSPARK_GATEWAY_PORT" in os.environ:
    from lambda_spark.storage.table_handle import TableHandle

    _moment, _table, _number = os.environ["KILL_AT"].split()
    _begun: Counter = Counter()
    for _name in COMMITS:
        setattr(TableHandle, _name, _patched(getattr(TableHandle, _name), _begun, _moment, _table, int(_number)))
