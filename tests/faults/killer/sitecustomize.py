"""A module that kills the job which imports it at a named point.

Put this folder first on PYTHONPATH and the point into KILL_AT. A point is `before TABLE N` or `after TABLE N`: just
before or just after this process makes its N-th commit to a table. Python imports this module at its start, so the real
job runs by its real command and needs no hook in its code.
"""

import os
import signal
import time
from collections import Counter

COMMITS = (
    "create", "append", "replace", "replace_where", "overwrite", "set_properties", "rewrite_dates", "delete",
    "delete_keys", "compact", "note",
)  # fmt: skip
"""The methods of a table handle that commit."""

CONCURRENT = (
    {"events", "rejected_events"},
    {"co_interactions", "baskets"},
    {"demand", "trends", "category_trends", "brand_trends"},
)
"""Tables that a job writes at the same time.

At a point of one of them, the commits to the others are delayed. Otherwise chance would decide whether they happen
before the kill."""
DELAY = 20.0
"""Seconds of that delay, enough for one commit. It has an end, because the point's own commit may already be made."""


def _die() -> None:
    # Kill the whole process group: the JVM, its Python and their children end at once, as when the machine fails.
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


# Act only in the driver. The launcher also imports this module, but it has no gateway before it becomes Spark.
if "KILL_AT" in os.environ and "PYSPARK_GATEWAY_PORT" in os.environ:
    from lambda_spark.storage.table_handle import TableHandle

    _moment, _table, _number = os.environ["KILL_AT"].split()
    _begun: Counter = Counter()
    for _name in COMMITS:
        setattr(TableHandle, _name, _patched(getattr(TableHandle, _name), _begun, _moment, _table, int(_number)))
