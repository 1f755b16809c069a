"""Brings a lake to rest: ingestion waits while the speed layer catches up with the table `events`.

Jobs that delete rows need the lake at rest. The speed layer reads the rows appended to `events` as a stream and skips
commits that delete rows. So the stream must have read all rows before any row is deleted. Ingestion must wait until the
deletion is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from lambda_spark.batch.refresh import update_trends
from lambda_spark.errors import CheckpointError, JobRunningError
from lambda_spark.ingestion.ingest import renew_products
from lambda_spark.ingestion.kafka_source import stream_name, topics_read
from lambda_spark.ingestion.micro_batch import INGEST_TABLES
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.settings import (
    RecommendationSettings,
    Settings,
    SimilaritySettings,
    TrendSettings,
    from_recorded,
    recorded,
)
from lambda_spark.speed.update import REBUILD, check_halves, refresh_similar_items, update_similarity
from lambda_spark.storage.checkpoints import APPLICATION, Checkpoint, covered_version, is_at_head
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import (
    BASKETS,
    CO_INTERACTIONS,
    EVENTS,
    RECOMMENDATIONS,
    SIMILAR_ITEMS,
    USER_TRENDS,
    Table,
)

logger = logging.getLogger(__name__)

Section = TypeVar("Section")

WRITING_JOBS = ("ingest", "trends", "similarity", "recommend", "maintain", "forget", "restore")
"""Names of the locks that writing jobs hold. Each Kafka topic has one more lock."""

_PATIENCE_SECONDS = 10.0
"""How long `at_rest_unread` first waits before it lets readers in again, in seconds."""


@contextmanager
def at_rest(lake: Lake, settings: Settings, *, within: float | None = None) -> Iterator[None]:
    """Lock the tables that ingestion writes, and make sure that the speed layer has read all rows of `events`.

    If a similarity job is running, this function waits until that job has read all rows. Otherwise this process runs
    the micro-batches itself.

    Args:
        lake: The lake to hold.
        settings: All settings.
        within: How many seconds to wait for another process; None waits without limit.

    Raises:
        CheckpointError: The similarity stream cannot continue. The message names the command that helps.
        JobRunningError: Another process did not finish in time.
    """
    with lake.locks.tables(*(table.name for table in INGEST_TABLES), within=within):
        _drain(lake, settings, within)
        yield


@contextmanager
def at_rest_unread(lake: Lake, settings: Settings) -> Iterator[None]:
    """Hold the lake as `at_rest` does and also keep readers out, so that files may be deleted.

    This function waits for other processes, and such a process may itself wait to read the lake. So each wait ends
    after some seconds and lets readers in. The next wait is twice as long, because a stream may need more time.

    Args:
        lake: The lake to hold.
        settings: All settings.

    Raises:
        CheckpointError: The similarity stream cannot continue. The message names the command that helps.
    """
    patience = _PATIENCE_SECONDS
    while True:
        with ExitStack() as locks:
            locks.enter_context(lake.locks.no_readers())
            try:
                locks.enter_context(at_rest(lake, settings, within=patience))
            except JobRunningError:
                locks.close()
                time.sleep(1)
                patience *= 2
                continue
            yield
            return


def _drain(lake: Lake, settings: Settings, within: float | None) -> None:
    """Wait until the speed layer has read all rows of `events`, or run its micro-batches in this process."""
    missing = [table.name for table in (BASKETS, CO_INTERACTIONS) if not lake[table].exists()]
    if len(missing) == 2:
        return
    # Only `baskets` may be missing, and only before the first micro-batch. The first run of the similarity job may have
    # been killed while it created the two tables.
    if CO_INTERACTIONS.name in missing or (missing and lake[CO_INTERACTIONS].last_commit(job="similarity")):
        raise CheckpointError(f"the table {missing[0]} is missing in {lake.path}; {REBUILD}")
    if not missing:
        check_halves(lake, similarity_checkpoint(lake).application)
    start, announced = time.monotonic(), False
    while not is_at_head(lake, similarity_checkpoint(lake), EVENTS):
        try:
            with lake.locks.job("similarity"):
                update_similarity(lake, similarity_settings(lake, settings))
        except JobRunningError as running:
            if within is not None and time.monotonic() > start + within:
                raise
            if not announced:
                logger.info(f"waiting until similarity has read the newest events: {running}")
                announced = True
            time.sleep(0.5)


def hold_every_job(lake: Lake, locks: ExitStack) -> None:
    """Lock every job that writes, so that no such job runs until the stack closes.

    Args:
        lake: The lake to hold.
        locks: The stack that releases the locks.

    Raises:
        JobRunningError: One of the jobs is running.
    """
    topics = topics_read(lake[EVENTS].properties())
    for name in (*map(stream_name, topics), *WRITING_JOBS):
        locks.enter_context(lake.locks.job(name))


def similarity_checkpoint(lake: Lake) -> Checkpoint:
    """Return the similarity stream's checkpoint. Its application id is recorded with `co_interactions`."""
    application = lake[CO_INTERACTIONS].properties()[APPLICATION]
    return Checkpoint("similarity", application, lake.checkpoint("similarity", application))


def renew_views(lake: Lake, settings: Settings) -> None:
    """Update every existing view, with the settings that are recorded in the view's table."""
    renew_products(lake)
    if lake[CO_INTERACTIONS].exists() and lake[SIMILAR_ITEMS].exists():
        refresh_similar_items(lake, similarity_settings(lake, settings))
    if lake[USER_TRENDS].exists():
        update_trends(lake, _recorded_settings(lake, USER_TRENDS, TrendSettings, settings.trends))
    if lake[RECOMMENDATIONS].exists():
        chosen = _recorded_settings(lake, RECOMMENDATIONS, RecommendationSettings, settings.recommendations)
        update_recommendations(lake, chosen)


def mark_events_covered(lake: Lake, job: str) -> None:
    """Record that `co_interactions` is up to date with `events`, after a job deleted rows from both tables.

    Args:
        lake: The lake to change.
        job: Name of the job that deleted the rows.
    """
    if not lake[CO_INTERACTIONS].exists():
        return
    application = lake[CO_INTERACTIONS].properties()[APPLICATION]
    done = lake[CO_INTERACTIONS].last_commit(application=application)
    if done is None:
        return
    covered = covered_version(done.note)
    if covered is None or not lake[EVENTS].unchanged_since(covered):
        lake[CO_INTERACTIONS].note({**done.note, "job": job, "events_version": lake[EVENTS].version()})


def similarity_settings(lake: Lake, settings: Settings) -> SimilaritySettings:
    """Return the settings that are recorded with the tables of the speed layer.

    Args:
        lake: The lake to look at.
        settings: All settings. They supply the values that are not recorded yet.
    """
    texts = recorded(settings.similarity)
    if lake[SIMILAR_ITEMS].exists():
        texts |= lake[SIMILAR_ITEMS].properties()
    return from_recorded(SimilaritySettings, texts | {"window": lake[CO_INTERACTIONS].properties()["window"]})


def _recorded_settings(lake: Lake, table: Table, section: type[Section], default: Any) -> Section:
    return from_recorded(section, recorded(default) | lake[table].properties())


def finished_batch(lake: Lake) -> int:
    """Return the number of the newest micro-batch that both `baskets` and `co_interactions` hold; -1 without one."""
    application = lake[CO_INTERACTIONS].properties()[APPLICATION]
    commits = [lake[table].last_commit(application=application) for table in (BASKETS, CO_INTERACTIONS)]
    return min(-1 if commit is None else int(commit.note["batch_id"]) for commit in commits)
