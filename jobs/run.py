"""The whole chain once, incrementally; one run at a time on a lake."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.cli.pipeline import run_chain


def run(job: Job) -> None:
    lake = job.record(job.lake(create=True))
    waiting = job.say if job.arguments.wait else None
    with lake.locks.job("run", waiting=waiting):
        run_chain(job, lake, job.sources(), start=job.arguments.start, end=job.arguments.end, waiting=waiting)


if __name__ == "__main__":
    run_job("run", run)
