"""The whole chain once, incrementally."""

from lambda_spark.job import Job, run_job
from lambda_spark.operations.chain import run_chain


def run(job: Job) -> None:
    run_chain(job, job.record(job.lake(create=True)), job.sources())


if __name__ == "__main__":
    run_job("run", run)
