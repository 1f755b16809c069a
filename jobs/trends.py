"""The `trends` job, which is the batch layer. It computes demand and trends per time bucket."""

from pyspark.sql import functions as F

from lambda_spark.batch.refresh import compute, extent_of, update_trends
from lambda_spark.cli.job import Job, run_job
from lambda_spark.report.pipeline import trend_line
from lambda_spark.report.result import trend_result
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS


def trends(job: Job) -> None:
    """Bring the trend tables up to date. With --as-of, print the trends of a past time and store nothing.

    Raises:
        JobRunningError: Another process runs `trends` on the lake.
    """
    lake = job.lake()
    if job.arguments.as_of is not None:
        with lake.locks.reader():
            show_as_of(job, lake)
        return
    job.record(lake)
    with lake.locks.job("trends"):
        run = update_trends(lake, job.settings.trends, start=job.arguments.start, end=job.arguments.end)
    job.summary([trend_line(run)], read={EVENTS.name: run.events_version}, written=run.written)


def show_as_of(job: Job, lake: Lake) -> None:
    """Compute and print the trends of the events before the time that --as-of names. Store nothing."""
    moment = F.lit(f"{job.arguments.as_of:%Y-%m-%d %H:%M:%S}").cast("timestamp")
    version = lake[EVENTS].version()
    events = lake[EVENTS].read(version).where(F.col("event_time") < moment)
    extent = extent_of(events, lake.retention_cutoff())
    if extent is None:
        print(f"No events before {job.arguments.as_of}.")
        return
    with compute(events, job.settings.trends, extent, moment) as tables:
        print(trend_result(tables.trends, tables.category_trends, job.settings.trends))
    job.summary([f"as of {job.arguments.as_of}; nothing stored"], read={EVENTS.name: version}, written={})


if __name__ == "__main__":
    run_job("trends", trends)
