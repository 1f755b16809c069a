"""The `evaluate` job. It measures how well recommendations and baselines predict what users do after a split time."""

import json
import tempfile
import uuid
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from pyspark.sql import functions as F

from lambda_spark.cli.job import Job, run_job
from lambda_spark.errors import UsageError
from lambda_spark.evaluation.evaluate import DEPTH, evaluate
from lambda_spark.evaluation.methods import RECOMMEND
from lambda_spark.evaluation.tuning import METRIC, REPEAT, REPEAT_WEIGHT, Trial, tune
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.report.evaluation import evaluation_lines, evaluation_tables, tuned_settings
from lambda_spark.report.pipeline import account_lines
from lambda_spark.settings import Settings
from lambda_spark.spark import literal_rows
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVALUATIONS, EVENTS


def main(job: Job) -> None:
    """Evaluate the recommender and the baselines. With --tune, search for better settings instead.

    Raises:
        UsageError: There are no events before or after the split, or --tune is used together with event files.
    """
    arguments = job.arguments
    if arguments.tune:
        tune_settings(job)
        return
    with ExitStack() as stack:
        lines = []
        if arguments.sources:
            # Ingest the files into a temporary lake, so that `ingest` drops repeated events and rejects bad lines.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lambda-spark-"))
            lake = Lake.open(job.spark, f"{folder}/lake", create=True)
            lines = account_lines(ingest(lake, arguments.sources, job.settings.ingest, job.settings.source))
        else:
            lake = job.lake()
            stack.enter_context(lake.locks.reader())
        version = lake[EVENTS].version()
        rows = evaluate(
            lake[EVENTS].read(version),
            job.settings,
            arguments.protocol,
            share=arguments.split,
            max_queries=arguments.max_queries,
        )
        if arguments.json:
            print("\n".join(evaluation_lines(rows)), flush=True)
            return
        print(f"\n{evaluation_tables(rows)}")
        written = {} if arguments.sources else {EVALUATIONS.name: store(job, lake, job.settings, rows, version)}
        job.summary(lines, read={EVENTS.name: version}, written=written)


def tune_settings(job: Job) -> None:
    """Search for better settings. Store each trial in `evaluations`, so that the next start does not repeat the trial.

    Raises:
        UsageError: The command line names event files. The trials need a lake that stays.
    """
    arguments = job.arguments
    if arguments.sources:
        raise UsageError("--tune keeps its trials in a lake: ingest the files first and name the lake with --lake")
    lake = job.lake()
    with lake.locks.reader():
        _tune_on(job, lake)


def _tune_on(job: Job, lake: Lake) -> None:
    arguments = job.arguments
    version = lake[EVENTS].version()
    lake.create(EVALUATIONS)
    is_same_task = (
        (F.col("events_version") == version)
        & (F.col("share") == arguments.split)
        & (F.col("protocol") == arguments.protocol)
    )
    known_trials = {
        (row.slice, row.settings): row
        for row in lake[EVALUATIONS].read().where(is_same_task & F.startswith("slice", F.lit("tuning "))).collect()
    }

    def recall(settings: Settings, name: str, candidate: Any) -> Trial | None:
        row = known_trials.get((f"tuning {name} = {candidate}", as_json(settings)))
        if row is None:
            return None
        return Trial(name, candidate, row.value, row.difference, row.low, row.high, row.queries)

    def keep(settings: Settings, trial: Trial) -> None:
        row = {
            "method": RECOMMEND,
            "protocol": arguments.protocol,
            "repeats": trial.setting in (REPEAT, REPEAT_WEIGHT),
            "slice": f"tuning {trial.setting} = {trial.candidate}",
            "queries": trial.queries,
            "metric": f"{METRIC}@{DEPTH}",
            **{name: getattr(trial, name) for name in ("value", "difference", "low", "high")},
        }
        store(job, lake, settings, pd.DataFrame([row]), version)

    tuning = tune(
        lake[EVENTS].read(version),
        job.settings,
        arguments.protocol,
        share=arguments.split,
        max_queries=arguments.max_queries,
        minutes=arguments.budget,
        recall=recall,
        keep=keep,
    )
    arguments.out.write_text(tuned_settings(tuning), encoding="utf-8")
    state = "finished" if tuning.finished else "the time is over; the next start continues from here"
    lines = [f"tune: {len(tuning.trials)} trials, {state}", f"settings and evidence: {arguments.out}"]
    job.summary(lines, read={EVENTS.name: version}, written=lake.versions(EVALUATIONS))


def as_json(settings: Settings) -> str:
    """Convert settings to the JSON text that the table `evaluations` stores."""
    return json.dumps(asdict(settings), default=str)


def store(job: Job, lake: Lake, settings: Settings, rows: pd.DataFrame, version: int) -> int:
    """Append the results of an evaluation to the table `evaluations`.

    Args:
        job: The job that evaluates.
        lake: The lake that has the table.
        settings: The settings that were evaluated.
        rows: The results. They lack the columns that this function fills with the same value in all rows.
        version: Version of `events` from which the results were computed.

    Returns:
        The version of `evaluations` after the append.
    """
    lake.create(EVALUATIONS)
    common = {
        "run_id": uuid.uuid4().hex,
        "evaluated_at": datetime.now(UTC).isoformat(),
        "share": job.arguments.split,
        "settings": as_json(settings),
        "events_version": version,
    }
    records = [{**common, **row} for row in json.loads(rows.to_json(orient="records"))]
    schema = ", ".join(f"{column.name}: {column.type}" for column in EVALUATIONS.columns)
    table = literal_rows(job.spark, records, schema)
    lake[EVALUATIONS].append(table, note={"job": "evaluate"})
    return lake[EVALUATIONS].version()


if __name__ == "__main__":
    run_job("evaluate", main)
