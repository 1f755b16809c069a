"""How good the recommendations are, against baselines, on what users did after a split in time."""

import json
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime

import pandas as pd

from lambda_spark.evaluation.evaluate import evaluate
from lambda_spark.evaluation.trend_quality import rendered, trend_quality
from lambda_spark.events.ingest import ingest
from lambda_spark.job import Job, run_job
from lambda_spark.lake import Lake
from lambda_spark.operations.chain import account_lines
from lambda_spark.report.evaluation import evaluation_lines, evaluation_tables
from lambda_spark.session import literal_rows
from lambda_spark.tables import EVALUATIONS, EVENTS


def main(job: Job) -> None:
    arguments = job.arguments
    if arguments.protocol == "trends":
        progress(job)(f"finding planted trends in {arguments.seeds} made-up stores")
        figures = trend_quality(job.spark, range(1, arguments.seeds + 1), job.settings.trends)
        print("\n".join(json.dumps(asdict(one)) for one in figures) if arguments.json else rendered(figures))
        return
    with ExitStack() as stack:
        lines = []
        if arguments.sources:
            # Files are read as always, with repeats dropped and bad lines out, into a lake of their own.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lambda-spark-"))
            lake = Lake.open(job.spark, f"{folder}/lake", create=True)
            lines = account_lines(ingest(lake, arguments.sources, job.settings.ingest, progress=progress(job)))
        else:
            lake = job.lake()
            stack.enter_context(lake.locks.reader())
        version = lake.version(EVENTS)
        rows = evaluate(
            lake.read(EVENTS, version),
            job.settings,
            arguments.protocol,
            share=arguments.split,
            max_queries=arguments.max_queries,
            progress=progress(job),
        )
        if arguments.json:
            print("\n".join(evaluation_lines(rows)), flush=True)
            return
        print(f"\n{evaluation_tables(rows)}")
        written = {} if arguments.sources else {EVALUATIONS.name: store(job, lake, rows, version)}
        job.summary(lines, read={EVENTS.name: version}, written=written)


def store(job: Job, lake: Lake, rows: pd.DataFrame, version: int) -> int:
    """Append the results to `evaluations`; returns its version."""
    lake.create(EVALUATIONS)
    run_id = uuid.uuid4().hex
    common = {
        "run_id": run_id,
        "evaluated_at": datetime.now(UTC).isoformat(),
        "share": job.arguments.split,
        "settings": json.dumps(asdict(job.settings), default=str),
        "events_version": version,
    }
    records = [{**common, **row} for row in json.loads(rows.to_json(orient="records"))]
    schema = ", ".join(f"{column.name}: {column.type}" for column in EVALUATIONS.columns)
    table = literal_rows(job.spark, records, schema)
    lake.append(EVALUATIONS, table, application=run_id, batch_id=0, note={"job": "evaluate"})
    return lake.version(EVALUATIONS)


def progress(job: Job) -> Callable[[str], None]:
    """With --json the output is for a program, so progress goes to the error output."""
    return (lambda text: print(text, file=sys.stderr)) if job.arguments.json else job.say


if __name__ == "__main__":
    run_job("evaluate", main)
