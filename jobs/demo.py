"""The `demo` job. It makes a new lake, runs all steps of the recommender on it, and prints the result."""

import logging
from contextlib import ExitStack

from lambda_spark.cli.arguments import PROJECT
from lambda_spark.cli.demo_lake import MADE_BY_DEMO, clear_demo_lake
from lambda_spark.cli.job import Job, run_job
from lambda_spark.cli.pipeline import run_chain
from lambda_spark.ids import user_id
from lambda_spark.ingestion.ingest import create_tables
from lambda_spark.report.result import result

logger = logging.getLogger("lambda_spark.jobs")

STEPS = ("ingest", "trends", "similarity", "recommend")


def demo(job: Job) -> int:
    """Delete the lake of an earlier demo, run all steps on a new lake, and print the result.

    Raises:
        UsageError: There is a lake that was not made by a demo, or --user names no user id of the new lake.
        JobRunningError: Another process runs one of the steps on the lake.
    """
    with ExitStack() as locks:
        cleared = clear_demo_lake(job.spark, job.arguments.lake, locks, STEPS)
        if cleared:
            logger.info(f"the lake of an earlier demo is cleared: {job.arguments.lake}")
    lake = job.lake(create=True)
    create_tables(lake, properties=MADE_BY_DEMO, ids=job.settings.source.ids)
    user = None if job.arguments.user is None else user_id(job.arguments.user, lake.ids)
    code = run_chain(job, lake, job.arguments.sources or [str(PROJECT / "data" / "store")])
    with lake.locks.reader():
        print(f"\n{result(lake, job.settings, user)}")
    print(
        "\nNow ask the lake yourself:\n"
        "  ./spark-submit.sh recommend --user ID\n"
        "  ./spark-submit.sh sql \"select * from trends where direction = 'rising' order by bucket_start, rank\"\n"
        "  ./spark-submit.sh shell"
    )
    return code


if __name__ == "__main__":
    run_job("demo", demo)
