"""The `run` job. It runs all steps of the recommender once on new events. A lake allows only one `run` at a time."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.cli.pipeline import run_chain


def run(job: Job) -> int:
    """Run `ingest`, `trends`, `similarity` and `recommend` once each.

    Raises:
        JobRunningError: Another process works on the lake, and the command line has no --wait.
    """
    lake = job.record(job.lake(create=True))
    with lake.locks.job("run", wait=job.arguments.wait):
        start, end, wait = job.arguments.start, job.arguments.end, job.arguments.wait
        return run_chain(job, lake, job.sources(), start=start, end=end, wait=wait)


if __name__ == "__main__":
    run_job("run", run)
