"""The `run` job: it does all steps once for the new events. Only one run at a time may work on a lake."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.cli.pipeline import run_chain


def run(job: Job) -> None:
    """Run all steps once.

    Raises:
        JobRunningError: Another run is at work on the lake, and the command line has no --wait.
    """
    lake = job.record(job.lake(create=True))
    with lake.locks.job("run", wait=job.arguments.wait):
        run_chain(job, lake, job.sources(), start=job.arguments.start, end=job.arguments.end, wait=job.arguments.wait)


if __name__ == "__main__":
    run_job("run", run)
