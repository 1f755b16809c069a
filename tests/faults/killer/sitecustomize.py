"""A module that kills the job that imports it when the job reaches a named point.

Put this folder first on PYTHONPATH and set KILL_AT to the point. A point is `before TABLE N` or `after TABLE N`: just
before or just after this process makes its N-th commit to a table. Python imports a module of
this name when it starts, so the real command runs the real job, whose code needs no hook.
"""

import os
import signal
import time
from collections import Counter

COMMITS = (
    "create", "append", "replace", "replace_where", "overwrite", "set_properties", "rewrite_dates", "delete",
    "delete_keys", "compact", "note",
)  # fmt: skip
"""The methods of `TableHandle` that commit to a table."""

CONCURRENT = (
    {"events", "rejected_events"},
    {"co_interactions", "baskets"},
    {"demand", "trends", "category_trends", "brand_trends"},
)
"""Groups of tables that a job writes at the same time.

For a point at one table, the commits to the other tables of its group are delayed. Otherwise chance would decide
whether these commits happen before the kill."""
DELAY = 20.0
"""Seconds of that delay, enough for one commit. The delay must end, because the point may already be passed."""


def _die() -> None:
    # Kill the whole process group: the JVM, Python and their children end at once, as when the machine fails.
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _patched(commit, begun: Counter, moment: str, table: str, number: int):
    def committed(handle, *arguments, **named):
        if commit.__name__ == "create" and handle.exists():
            # An existing table stays as it is, without a commit.
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


# Act only in the driver. The launcher of Spark also imports this module, but has no gateway port yet.
if "KILL_AT" in os.environ and "PYSPARK_GATEWAY_PORT" in os.environ:
    from lambda_spark.storage.table_handle import TableHandle

    _moment, _table, _number = os.environ["KILL_AT"].split()
    _begun: Counter = Counter()
    for _name in COMMITS:
        setattr(TableHandle, _name, _patched(getattr(TableHandle, _name), _begun, _moment, _table, int(_number)))
