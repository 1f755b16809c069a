"""Users leave: every table as if they had never come.

What a user did is taken out of `events`; the rest follows from that. Baskets take their counts away with them, by the
function that had added them; of the trends those buckets are recomputed that the user's events lay in. No id gets into
a plan, a log or a property: users are looked for by salted hashes, and rows are taken out by joins.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError
from lambda_spark.ingestion.refused_users import FORGETTING, REFUSING, SALT, lines_naming, pseudonym, pseudonym_of
from lambda_spark.operations.quiesce import at_rest, cover, renew_views
from lambda_spark.operations.vacuum import Deleted, vacuum
from lambda_spark.settings import Settings
from lambda_spark.spark import literal_rows
from lambda_spark.speed.baskets import BASKET
from lambda_spark.speed.co_interactions import folded_counts, known_items, withdrawn_contributions
from lambda_spark.storage.checkpoints import APPLICATION
from lambda_spark.storage.delta_log import dates_taken_out
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import (
    BASKETS,
    CO_INTERACTIONS,
    EVENTS,
    RECOMMENDATIONS,
    REFUSED_USERS,
    REJECTED_EVENTS,
    USER_TRENDS,
    Table,
)

Progress = Callable[[str], None]

BY_USER = (EVENTS, USER_TRENDS, BASKETS, RECOMMENDATIONS)
"""The tables that have a user's id."""


@dataclass(slots=True)
class Certificate:
    """What was, or would be, removed."""

    users: int
    """How many users were asked for,"""
    found: int = 0
    """and how many of them the lake knew."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows removed, by table."""
    before: dict[str, int] = field(default_factory=dict)
    """The version of each table before,"""
    after: dict[str, int] = field(default_factory=dict)
    """and after."""
    sources: list[str] = field(default_factory=list)
    """The files that the removed rows had come from."""
    refused: bool = False
    """Whether nothing more of them is taken in."""
    cut: date | None = None
    """The lake's cut date: trends before it are frozen, and cannot be computed without them."""
    vacuumed: dict[str, Deleted] | None = None
    """Files deleted, by table; None where the old versions were kept."""
    logs: int = 0
    """Log files deleted since they named a user."""


@dataclass(frozen=True, slots=True)
class _Leaving:
    """The users to forget, in this run's pseudonyms (column `user`), and those the lake knows (column `user_id`)."""

    ids: Collection[int]
    salt: str
    pseudonyms: DataFrame
    known: DataFrame


def check_nothing_pending(lake: Lake) -> None:
    """Raises LakeError where a `forget` was interrupted: only it knows the users it was to forget."""
    if is_pending(lake):
        raise LakeError(f"a `forget` was interrupted on {lake.path}: start it again with the same users first")


def is_pending(lake: Lake) -> bool:
    """Whether a `forget` has begun and is not done: it runs, or was interrupted."""
    return bool(_pending(lake))


def look(lake: Lake, ids: Collection[int], *, refuse: bool) -> Certificate:
    """A dry look: what there is of some users."""
    leaving = _leaving(lake, ids)
    try:
        return _found(lake, leaving, refuse)
    finally:
        leaving.known.unpersist()


def forget(
    lake: Lake, settings: Settings, ids: Collection[int], *, refuse: bool, erase: bool, progress: Progress
) -> Certificate:
    """Forget some users; with `refuse` also take in nothing more of them, with `erase` delete the old files too.

    Each step finds by itself what is left to do: started again with the same users, it finishes what was interrupted.
    Raises LakeError where that had other users.
    """
    with at_rest(lake, settings, progress):
        pending = _pending(lake)
        if pending and pending["users"] != _digest(ids, pending["salt"]):
            raise LakeError(
                f"a `forget` of other users was interrupted on {lake.path}: start it again with those first"
            )
        leaving = _leaving(lake, ids)
        try:
            certificate = _found(lake, leaving, refuse)
            if refuse:
                _refuse(lake, ids)
            if certificate.rows or pending:
                _take_out(lake, settings, leaving, certificate, pending, progress)
        finally:
            leaving.known.unpersist()
        certificate.after = lake.versions(*lake.present())
    if erase:
        # Only now must readers wait: while rows are taken out, whoever reads has the version from before.
        certificate.vacuumed = vacuum(lake, settings, timedelta(), progress)
        certificate.logs = _forget_logs(lake, ids)
    return certificate


def _leaving(lake: Lake, ids: Collection[int]) -> _Leaving:
    salt = secrets.token_hex(16)
    rows = [{"user": pseudonym(one, salt)} for one in sorted(ids)]
    pseudonyms = literal_rows(lake.spark, rows, "user: string")
    everyone = reduce(DataFrame.unionByName, (_users_of(lake, table) for table in BY_USER if lake.exists(table)))
    known = everyone.distinct().withColumn("user", pseudonym_of(F.col("user_id"), salt))
    known = known.join(F.broadcast(pseudonyms), on="user", how="left_semi").select("user_id")
    return _Leaving(ids, salt, pseudonyms, known.persist())


def _users_of(lake: Lake, table: Table) -> DataFrame:
    return lake.read(table, lake.version(table)).select("user_id").distinct()


def _found(lake: Lake, leaving: _Leaving, refuse: bool) -> Certificate:
    before = lake.versions(*lake.present())
    certificate = Certificate(len(leaving.ids), leaving.known.count(), before=before, refused=refuse, cut=lake.cut())
    counts = {table.name: _rows_of(lake, table, leaving.known).count() for table in BY_USER if lake.exists(table)}
    counts[REJECTED_EVENTS.name] = _rejected(lake, leaving).count()
    certificate.rows = {name: count for name, count in counts.items() if count}
    sources = _rows_of(lake, EVENTS, leaving.known).select("source")
    rejected = lake.read(REJECTED_EVENTS).join(_rejected(lake, leaving), on="rejected_id", how="left_semi")
    both = sources.unionByName(rejected.select("source")).distinct().orderBy("source")
    certificate.sources = [row.source for row in both.collect()]
    return certificate


def _rows_of(lake: Lake, table: Table, users: DataFrame) -> DataFrame:
    return lake.read(table, lake.version(table)).join(F.broadcast(users), on="user_id", how="left_semi")


def _rejected(lake: Lake, leaving: _Leaving) -> DataFrame:
    """The rejected lines that name a user: `rejected_id`."""
    lines = lake.read(REJECTED_EVENTS, lake.version(REJECTED_EVENTS)).where(F.col("raw").isNotNull())
    return lines_naming(lines, "rejected_id", leaving.pseudonyms, leaving.salt)


def _refuse(lake: Lake, ids: Collection[int]) -> None:
    lake.create(REFUSED_USERS, properties={SALT: secrets.token_hex(16)})
    if REFUSING not in lake.properties(EVENTS):
        lake.set_properties(EVENTS, {REFUSING: "true"})
    salt = lake.properties(REFUSED_USERS)[SALT]
    users = literal_rows(lake.spark, [{"user": pseudonym(one, salt)} for one in sorted(ids)], "user: string")
    new = users.join(lake.read(REFUSED_USERS, lake.version(REFUSED_USERS)), on="user", how="left_anti")
    if not new.isEmpty():
        lake.append(REFUSED_USERS, new, note={"job": "forget"})


def _take_out(
    lake: Lake,
    settings: Settings,
    leaving: _Leaving,
    certificate: Certificate,
    pending: Mapping[str, Any],
    progress: Progress,
) -> None:
    note = {"job": "forget"}
    since, application = _begin(lake, leaving.ids, pending)
    for table in (REJECTED_EVENTS, USER_TRENDS, EVENTS):
        if table.name in certificate.rows:
            keys = _rejected(lake, leaving) if table is REJECTED_EVENTS else leaving.known
            lake.delete_keys(table, keys, note=note)
            progress(f"{table.name}: {certificate.rows[table.name]:,} rows taken out")
    if lake.exists(BASKETS):
        with lake.locks.tables(BASKETS.name, CO_INTERACTIONS.name):
            lake.delete_keys(BASKETS, leaving.known, note=note)
            for removed in range(since + 1, lake.version(BASKETS) + 1):
                if (lake.note_of(BASKETS, removed) or {}).get("job") == "forget":
                    _withdraw(lake, removed, application)
            cover(lake, "forget")
            progress("baskets and their counts taken out")
    renew_views(lake, settings, progress)
    lake.set_properties(EVENTS, {FORGETTING: ""})


def _pending(lake: Lake) -> dict[str, Any]:
    """What a `forget` that was interrupted has recorded; empty where none was."""
    recorded: dict[str, Any] = json.loads(lake.properties(EVENTS).get(FORGETTING) or "{}")
    return recorded


def _begin(lake: Lake, ids: Collection[int], pending: Mapping[str, Any]) -> tuple[int, str]:
    """The version of `baskets` before anything was taken out, and its application id.

    Recorded at the first start, and again where the speed layer was rebuilt since: from events that may still have had
    the users.
    """
    exists = lake.exists(BASKETS)
    application = lake.properties(BASKETS).get(APPLICATION, "") if exists else ""
    if pending.get("application") == application:
        return pending["baskets"], application
    since, salt = lake.version(BASKETS) if exists else -1, secrets.token_hex(16)
    begun = {"baskets": since, "application": application, "salt": salt, "users": _digest(ids, salt)}
    lake.set_properties(EVENTS, {FORGETTING: json.dumps(begun)})
    return since, application


def _digest(ids: Collection[int], salt: str) -> str:
    """What tells some users from others, and not who they are: it costs too much to try one id after the other."""
    text = ",".join(map(str, sorted(ids)))
    return hashlib.scrypt(text.encode(), salt=salt.encode(), n=2**14, r=8, p=1).hex()


def _withdraw(lake: Lake, removed: int, application: str) -> None:
    """Take from `co_interactions` what the baskets counted that a version of `baskets` took out; once."""
    properties = lake.properties(CO_INTERACTIONS)
    dates = dates_taken_out(lake.files, BASKETS.name, removed)
    if not dates:
        return
    on_dates = F.col("event_date").isin(dates)
    before, after = (known_items(lake.read(BASKETS, version).where(on_dates)) for version in (removed - 1, removed))
    gone = before.join(after, on=[*BASKET, "product_id"], how="left_anti")
    counts = lake.read(CO_INTERACTIONS, lake.version(CO_INTERACTIONS)).where(on_dates)
    withdrawn = withdrawn_contributions(gone, window=int(properties["window"]))
    newest = counts.groupBy("event_date").agg(F.max("batch_id").alias("batch_id"))
    withdrawn = withdrawn.join(F.broadcast(newest), on="event_date", how="inner")
    left = folded_counts(counts.unionByName(withdrawn.select(*CO_INTERACTIONS.column_names)))
    lake.rewrite_dates(
        CO_INTERACTIONS,
        left.repartition("event_date"),
        dates,
        note={"job": "forget", "baskets_version": removed},
        once=(f"forget:{application}", removed),
    )


def _forget_logs(lake: Lake, ids: Collection[int]) -> int:
    """Delete the logs of jobs that name a user, as an error may; returns how many."""
    wanted = {str(one) for one in ids}
    naming = [
        name
        for name in lake.files.list("_logs")
        if wanted & set(re.findall(r"\d+", lake.files.read_text(f"_logs/{name}")))
    ]
    for name in naming:
        lake.files.delete(f"_logs/{name}")
    return len(naming)
