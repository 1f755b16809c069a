"""Removal of users from every table, as if they had never visited the store.

The users' rows are deleted from `events`, and every other table is brought in line. The counts that the users' baskets
added to `co_interactions` are subtracted by the same function. Trends are recomputed for the time buckets that held the
users' events.

No user's id gets into a query plan, a log or a table property. Users are found by salted hashes, and their rows are
deleted by joins.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.errors import LakeError
from lambda_spark.ids import Id
from lambda_spark.ingestion.refused_users import FORGETTING, REFUSING, SALT, lines_naming, pseudonym, pseudonym_of
from lambda_spark.operations.quiesce import at_rest, mark_events_covered, renew_views
from lambda_spark.operations.vacuum import Deleted, vacuum
from lambda_spark.settings import Settings
from lambda_spark.spark import literal_rows
from lambda_spark.speed.baskets import BASKET
from lambda_spark.speed.co_interactions import compacted_counts, known_items, withdrawn_contributions
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
from lambda_spark.text import strip_control_characters

logger = logging.getLogger(__name__)

BY_USER = (EVENTS, USER_TRENDS, BASKETS, RECOMMENDATIONS)
"""The tables with a column `user_id`."""


@dataclass(slots=True)
class Certificate:
    """What `forget` removed, or in a dry run would remove."""

    users: int
    """Number of users to forget."""
    found: int = 0
    """Number of these users who had rows in a table of `BY_USER`."""
    rows: dict[str, int] = field(default_factory=dict)
    """Number of rows removed, by table."""
    before: dict[str, int] = field(default_factory=dict)
    """Version of each table before the removal."""
    after: dict[str, int] = field(default_factory=dict)
    """Version of each table after the removal."""
    sources: list[str] = field(default_factory=list)
    """The files and Kafka offset ranges that the removed rows were read from."""
    refused: bool = False
    """Whether ingestion refuses further events of these users."""
    retention_cutoff: date | None = None
    """Events before this date are no longer in the lake, so earlier trends cannot be recomputed without the users."""
    vacuumed: dict[str, Deleted] | None = None
    """Number and size of deleted files, by table; None where the old table versions were kept."""
    logs: int = 0
    """Number of log files that were deleted because they named a user."""


@dataclass(frozen=True, slots=True)
class _UsersToForget:
    """The users to forget in one run."""

    ids: Collection[Id]
    salt: str
    """Salt of the users' pseudonyms (hashes of their ids), new in each run."""
    pseudonyms: DataFrame
    """Pseudonyms of all users to forget, in the column `user`."""
    known: DataFrame
    """Ids of the users to forget who have rows in a table of `BY_USER`, in the column `user_id`."""


def check_nothing_pending(lake: Lake) -> None:
    """Check that no run of `forget` was interrupted on the lake.

    Raises:
        LakeError: A run of `forget` was interrupted. Only another `forget` of the same users can finish the removal,
            because the lake does not record the users.
    """
    if is_pending(lake):
        raise LakeError(
            f"a `forget` was interrupted on {lake.path} and may have left rows of its users: start it again with the "
            "same users first"
        )


def is_pending(lake: Lake) -> bool:
    """Whether a run of `forget` has begun and not finished. The run may still go on or was interrupted."""
    return bool(_pending_forget(lake))


def preview(lake: Lake, ids: Collection[Id], *, refuse: bool) -> Certificate:
    """Count what `forget` would remove, and change nothing.

    Args:
        lake: The lake to look at.
        ids: The users' ids.
        refuse: Whether `forget` would also refuse further events of these users.
    """
    users = _users_to_forget(lake, ids)
    try:
        return _count_known(lake, users, refuse)
    finally:
        users.known.unpersist()


def forget(lake: Lake, settings: Settings, ids: Collection[Id], *, refuse: bool, erase: bool) -> Certificate:
    """Remove some users from every table.

    If a run is interrupted, another run for the same users finishes the removal, because each step first checks what is
    left to do.

    Args:
        lake: The lake to change.
        settings: All settings.
        ids: The users' ids.
        refuse: Whether ingestion refuses further events of these users from now on.
        erase: Whether to also delete, now, the data files of older table versions and the job logs that name a user.

    Raises:
        LakeError: A `forget` of other users was interrupted.
        CheckpointError: The similarity stream cannot continue.
    """
    with at_rest(lake, settings):
        pending = _pending_forget(lake)
        if pending and pending["users"] != _digest(ids, pending["salt"]):
            raise LakeError(
                f"a `forget` of other users was interrupted on {lake.path} and may have left rows of those users: "
                "start it again with those users first"
            )
        users = _users_to_forget(lake, ids)
        try:
            certificate = _count_known(lake, users, refuse)
            if refuse:
                _refuse_users(lake, ids)
            if certificate.rows or pending:
                _remove_rows(lake, settings, users, certificate, pending)
        finally:
            users.known.unpersist()
        certificate.after = lake.versions(*lake.present())
    if erase:
        # Vacuum last, because a vacuum keeps readers out. Until the vacuum, readers can use the older table versions.
        certificate.vacuumed = vacuum(lake, settings, timedelta())
        certificate.logs = _delete_logs_naming(lake, ids)
    return certificate


def _users_to_forget(lake: Lake, ids: Collection[Id]) -> _UsersToForget:
    salt = secrets.token_hex(16)
    rows = [{"user": pseudonym(user_id, salt)} for user_id in sorted(ids, key=str)]
    pseudonyms = literal_rows(lake.spark, rows, "user: string")
    everyone = reduce(DataFrame.unionByName, (_users_of(lake, table) for table in BY_USER if lake[table].exists()))
    known = everyone.distinct().withColumn("user", pseudonym_of(F.col("user_id"), salt))
    known = known.join(F.broadcast(pseudonyms), on="user", how="left_semi").select("user_id")
    return _UsersToForget(ids, salt, pseudonyms, known.persist())


def _users_of(lake: Lake, table: Table) -> DataFrame:
    return lake[table].read(lake[table].version()).select("user_id").distinct()


def _count_known(lake: Lake, users: _UsersToForget, refuse: bool) -> Certificate:
    """Make a certificate that counts the users' rows in each table and lists the sources of these rows."""
    before = lake.versions(*lake.present())
    certificate = Certificate(
        len(users.ids), users.known.count(), before=before, refused=refuse, retention_cutoff=lake.retention_cutoff()
    )
    counts = {table.name: _rows_of(lake, table, users.known).count() for table in BY_USER if lake[table].exists()}
    counts[REJECTED_EVENTS.name] = _rejected(lake, users).count()
    certificate.rows = {name: count for name, count in counts.items() if count}
    sources = _rows_of(lake, EVENTS, users.known).select("source")
    rejected = lake[REJECTED_EVENTS].read().join(_rejected(lake, users), on="rejected_id", how="left_semi")
    both = sources.unionByName(rejected.select("source")).distinct().orderBy("source")
    certificate.sources = [row.source for row in both.collect()]
    return certificate


def _rows_of(lake: Lake, table: Table, known: DataFrame) -> DataFrame:
    return lake[table].read(lake[table].version()).join(F.broadcast(known), on="user_id", how="left_semi")


def _rejected(lake: Lake, users: _UsersToForget) -> DataFrame:
    """Find the rejected lines that name one of the users. The only column returned is `rejected_id`."""
    lines = lake[REJECTED_EVENTS].read(lake[REJECTED_EVENTS].version()).where(F.col("raw").isNotNull())
    return lines_naming(lines, "rejected_id", users.pseudonyms, users.salt, lake.ids)


def _refuse_users(lake: Lake, ids: Collection[Id]) -> None:
    lake.create(REFUSED_USERS, properties={SALT: secrets.token_hex(16)})
    if REFUSING not in lake[EVENTS].properties():
        lake[EVENTS].set_properties({REFUSING: "true"})
    salt = lake[REFUSED_USERS].properties()[SALT]
    users = literal_rows(
        lake.spark, [{"user": pseudonym(user_id, salt)} for user_id in sorted(ids, key=str)], "user: string"
    )
    new = users.join(lake[REFUSED_USERS].read(lake[REFUSED_USERS].version()), on="user", how="left_anti")
    if not new.isEmpty():
        lake[REFUSED_USERS].append(new, note={"job": "forget"})


def _remove_rows(
    lake: Lake, settings: Settings, users: _UsersToForget, certificate: Certificate, pending: Mapping[str, Any]
) -> None:
    note = {"job": "forget"}
    since, application = _record_start(lake, users.ids, pending)
    for table in (REJECTED_EVENTS, USER_TRENDS, EVENTS):
        if table.name in certificate.rows:
            keys = _rejected(lake, users) if table is REJECTED_EVENTS else users.known
            lake[table].delete_keys(keys, note=note)
            logger.info(f"{table.name}: {certificate.rows[table.name]:,} rows removed")
    if lake[BASKETS].exists():
        with lake.locks.tables(BASKETS.name, CO_INTERACTIONS.name):
            lake[BASKETS].delete_keys(users.known, note=note)
            for removed in range(since + 1, lake[BASKETS].version() + 1):
                if (lake[BASKETS].note_of(removed) or {}).get("job") == "forget":
                    _withdraw_counts(lake, removed, application)
            mark_events_covered(lake, "forget")
            logger.info("baskets and their counts removed")
    renew_views(lake, settings)
    lake[EVENTS].set_properties({FORGETTING: ""})


def _pending_forget(lake: Lake) -> dict[str, Any]:
    """Return what an unfinished `forget` recorded at its start; empty if every `forget` has finished."""
    recorded: dict[str, Any] = json.loads(lake[EVENTS].properties().get(FORGETTING) or "{}")
    return recorded


def _record_start(lake: Lake, ids: Collection[Id], pending: Mapping[str, Any]) -> tuple[int, str]:
    """Record that a run of `forget` begins.

    If an earlier run was interrupted, its record is kept, unless the speed layer was rebuilt after the interruption.
    After a rebuild, the new record starts from the current version of `baskets`, because the rebuild may have read the
    users' events.

    Returns:
        The version of `baskets` before any row was removed (-1 without that table), and its application id.
    """
    exists = lake[BASKETS].exists()
    application = lake[BASKETS].properties().get(APPLICATION, "") if exists else ""
    if pending.get("application") == application:
        return pending["baskets"], application
    since, salt = lake[BASKETS].version() if exists else -1, secrets.token_hex(16)
    begun = {"baskets": since, "application": application, "salt": salt, "users": _digest(ids, salt)}
    lake[EVENTS].set_properties({FORGETTING: json.dumps(begun)})
    return since, application


def _digest(ids: Collection[Id], salt: str) -> str:
    """Fingerprint a set of users. It does not reveal the users, because scrypt makes guessing ids slow."""
    # Write texts as in JSON, so that no comma within an id can make two different sets look the same.
    text = ",".join(map(json.dumps, sorted(ids)))
    return hashlib.scrypt(text.encode(), salt=salt.encode(), n=2**14, r=8, p=1).hex()


def _withdraw_counts(lake: Lake, removed: int, application: str) -> None:
    """Subtract the counts of removed baskets from `co_interactions`, at most once.

    Args:
        lake: The lake to change.
        removed: The version of `baskets` whose commit removed the baskets.
        application: Application id of `baskets` and `co_interactions`.
    """
    properties = lake[CO_INTERACTIONS].properties()
    dates = dates_taken_out(lake.files, BASKETS.name, removed)
    if not dates:
        return
    on_dates = F.col("event_date").isin(dates)
    before, after = (known_items(lake[BASKETS].read(version).where(on_dates)) for version in (removed - 1, removed))
    gone = before.join(after, on=[*BASKET, "product_id"], how="left_anti")
    counts = lake[CO_INTERACTIONS].read(lake[CO_INTERACTIONS].version()).where(on_dates)
    withdrawn = withdrawn_contributions(gone, window=int(properties["window"]))
    newest = counts.groupBy("event_date").agg(F.max("batch_id").alias("batch_id"))
    withdrawn = withdrawn.join(F.broadcast(newest), on="event_date", how="inner")
    left = compacted_counts(counts.unionByName(withdrawn.select(*CO_INTERACTIONS.column_names)))
    lake[CO_INTERACTIONS].rewrite_dates(
        left.repartition("event_date"),
        dates,
        note={"job": "forget", "baskets_version": removed},
        once=(f"forget:{application}", removed),
    )


def _delete_logs_naming(lake: Lake, ids: Collection[Id]) -> int:
    """Delete the job logs that name one of the users, for example in an error. Return the number of deleted logs."""
    naming = [name for name in lake.files.list("_logs") if _names_a_user(lake.files.read_text(f"_logs/{name}"), ids)]
    for name in naming:
        lake.files.delete(f"_logs/{name}")
    return len(naming)


def _names_a_user(text: str, ids: Collection[Id]) -> bool:
    """Whether a text has the id of one of the users, not as a part of a longer word or number."""
    numbers = {str(user_id) for user_id in ids if isinstance(user_id, int)}
    # Logs have control characters as hex codes.
    texts = {strip_control_characters(user_id) for user_id in ids if isinstance(user_id, str)}
    return not numbers.isdisjoint(re.findall(r"\d+", text)) or any(
        re.search(rf"(?<!\w){re.escape(user_id)}(?!\w)", text) for user_id in texts if user_id in text
    )
