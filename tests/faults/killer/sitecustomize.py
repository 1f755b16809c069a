"""Kills the job that imports it at a named point: put this folder first on PYTHONPATH and the point into KILL_AT.

A point is `before TABLE N` or `after TABLE N`: the N-th commit to a table that this process begins, or has made. Python
imports this module at its start; what runs is otherwise the real job by its real command, without a hook in its code.
"""

import os
import signal
import time
from collections import Counter

COMMITS = (
    "_create", "append", "replace", "replace_where", "overwrite", "set_properties", "rewrite_dates", "delete",
    "delete_keys", "compact", "note",
)  # fmt: skip
"""The methods of Lake that commit; the table is their first argument."""

SIDE_BY_SIDE = (
    {"events", "rejected_events"},
    {"co_interactions", "baskets"},
    {"demand", "trends", "category_trends", "brand_trends"},
)
"""These are written at once: the others are held back, or they would be done or not by chance."""
LONG_ENOUGH = 20.0
"""Seconds for a commit; not for good, since the one of the point may be there already."""


def _die() -> None:
    # The JVM, its Python and what they started are one group: all go at once, as when the machine does.
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _patched(commit, begun: Counter, moment: str, table: str, number: int):
    def committed(lake, of, *arguments, **named):
        is_beside = of.name != table and any({of.name, table} <= each for each in SIDE_BY_SIDE)
        if is_beside and commit.__name__ in ("append", "replace", "replace_where"):
            time.sleep(LONG_ENOUGH)
        begun[of.name] += 1
        is_here = of.name == table and begun[of.name] == number
        if is_here and moment == "before":
            _die()
        commit(lake, of, *arguments, **named)
        if is_here and moment == "after":
            _die()

    return committed


# Only in the driver: the launcher before it becomes Spark has no gateway.
if "KILL_AT" in os.environ and "PYSPARK_GATEWAY_PORT" in os.environ:
    from lambda_spark.storage.lake import Lake

    _moment, _table, _number = os.environ["KILL_AT"].split()
    _begun: Counter = Counter()
    for _name in COMMITS:
        setattr(Lake, _name, _patched(getattr(Lake, _name), _begun, _moment, _table, int(_number)))
