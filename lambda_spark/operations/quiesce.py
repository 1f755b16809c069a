"""Bringing a lake to rest: all that came is taken in, and stays so while something is changed behind the layers.

The speed layer reads `events` as a stream of what was appended. Where rows are taken out, it must have read them before
(it skips the removal), and nothing may come in between; so ingestion waits while the stream catches up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.errors import CheckpointError, JobRunningError
from lambda_spark.ingestion.ingest import renew_products
from lambda_spark.ingestion.micro_batch import INGEST_TABLES
from lambda_spark.serving.refresh import refresh as refresh_recommendations
from lambda_spark.settings import (
    RecommendationSettings,
    Settings,
    SimilaritySettings,
    TrendSettings,
    from_recorded,
    recorded,
)
from lambda_spark.speed.update import REBUILD, check_halves, refresh_similar_items, update
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

Progress = Callable[[str], None]
Section = TypeVar("Section")

_PATIENCE_SECONDS = 10.0


@contextmanager
def at_rest(lake: Lake, settings: Settings, progress: Progress, *, within: float | None = None) -> Iterator[None]:
    """Hold what micro-batches of ingestion write, with the speed layer at the head of `events`.

    A similarity job that stays up is waited for; where none runs, its micro-batches are done here. Raises
    CheckpointError, naming the way out, where they can't be, and JobRunningError where another process is not done
    `within` so many seconds.
    """
    with lake.locks.tables(*(table.name for table in INGEST_TABLES), within=within):
        _drain(lake, settings, progress, within)
        yield


@contextmanager
def at_rest_unread(lake: Lake, settings: Settings, progress: Progress) -> Iterator[None]:
    """At rest, and with nobody reading: files may be deleted.

    Whom this waits for while it keeps readers out may itself be waiting to read. So it waits for seconds only, lets
    readers in, and tries again, each time for longer: a stream may need more than a few seconds.
    """
    patience = _PATIENCE_SECONDS
    while True:
        with ExitStack() as held:
            held.enter_context(lake.locks.no_readers())
            try:
                held.enter_context(at_rest(lake, settings, progress, within=patience))
            except JobRunningError:
                held.close()
                time.sleep(1)
                patience *= 2
                continue
            yield
            return


def _drain(lake: Lake, settings: Settings, progress: Progress, within: float | None) -> None:
    missing = [table.name for table in (BASKETS, CO_INTERACTIONS) if not lake.exists(table)]
    if len(missing) == 2:
        return
    # A first run that was killed between the two has counted nothing yet.
    if CO_INTERACTIONS.name in missing or (missing and lake.last_commit(CO_INTERACTIONS, job="similarity")):
        raise CheckpointError(f"{missing[0]} is missing in {lake.path}; {REBUILD}")
    if not missing:
        check_halves(lake, similarity_checkpoint(lake).application)
    start, told = time.monotonic(), False
    while not is_at_head(lake, similarity_checkpoint(lake), EVENTS):
        try:
            with lake.locks.job("similarity"):
                update(lake, similarity_settings(lake, settings), progress=progress)
        except JobRunningError as running:
            if within is not None and time.monotonic() > start + within:
                raise
            if not told:
                progress(f"waiting for similarity to take in the newest events: {running}")
                told = True
            time.sleep(0.5)


def similarity_checkpoint(lake: Lake) -> Checkpoint:
    application = lake.properties(CO_INTERACTIONS)[APPLICATION]
    return Checkpoint("similarity", application, lake.checkpoint("similarity", application))


def renew_views(lake: Lake, settings: Settings, progress: Progress) -> None:
    """Bring every view that has been computed up to date, with the settings recorded with it."""
    renew_products(lake)
    if lake.exists(CO_INTERACTIONS) and lake.exists(SIMILAR_ITEMS):
        refresh_similar_items(lake, similarity_settings(lake, settings), progress)
    if lake.exists(USER_TRENDS):
        refresh_trends(lake, _as_recorded(lake, USER_TRENDS, TrendSettings, settings.trends), progress=progress)
    if lake.exists(RECOMMENDATIONS):
        chosen = _as_recorded(lake, RECOMMENDATIONS, RecommendationSettings, settings.recommendations)
        refresh_recommendations(lake, chosen, progress=progress)


def cover(lake: Lake, job: str) -> None:
    """Note on `co_interactions` that it holds what the newest version of `events` does, after rows were taken out."""
    if not lake.exists(CO_INTERACTIONS):
        return
    application = lake.properties(CO_INTERACTIONS)[APPLICATION]
    done = lake.last_commit(CO_INTERACTIONS, application=application)
    if done is None:
        return
    covered = covered_version(done.note)
    if covered is None or not lake.is_same(EVENTS, covered):
        lake.note(CO_INTERACTIONS, {**done.note, "job": job, "events_version": lake.version(EVENTS)})


def similarity_settings(lake: Lake, settings: Settings) -> SimilaritySettings:
    """Those recorded with the tables; what is not recorded yet is as set."""
    texts = recorded(settings.similarity)
    if lake.exists(SIMILAR_ITEMS):
        texts |= lake.properties(SIMILAR_ITEMS)
    return from_recorded(SimilaritySettings, texts | {"window": lake.properties(CO_INTERACTIONS)["window"]})


def _as_recorded(lake: Lake, table: Table, section: type[Section], default: Any) -> Section:
    return from_recorded(section, recorded(default) | lake.properties(table))


def finished_batch(lake: Lake) -> int:
    """The newest micro-batch that is in both tables of the speed layer; -1 where none is."""
    application = lake.properties(CO_INTERACTIONS)[APPLICATION]
    done = [lake.last_commit(table, application=application) for table in (BASKETS, CO_INTERACTIONS)]
    return min(-1 if one is None else int(one.note["batch_id"]) for one in done)
