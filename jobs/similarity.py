"""The `similarity` job, which is the speed layer. It updates the counts of item co-interaction in micro-batches."""

from contextlib import ExitStack

from lambda_spark.cli.job import Job, run_job
from lambda_spark.report.pipeline import similarity_line
from lambda_spark.speed.update import start_over, update_similarity
from lambda_spark.storage.tables import BASKETS, CO_INTERACTIONS, EVENTS, SIMILAR_ITEMS


def similarity(job: Job) -> None:
    """Add new events to the counts and end, or keep running with an interval as --trigger.

    With --rebuild, empty the tables and count all events again.

    Raises:
        UsageError: The setting `similarity.window` differs from the window that the tables were made with.
        CheckpointError: The stream's checkpoint is lost or does not belong to the tables.
        JobRunningError: Another process runs `similarity` on the lake.
    """
    lake = job.record(job.lake())
    read = lake.versions(EVENTS)
    with ExitStack() as held:
        if job.arguments.rebuild:
            # Wait for a running `forget`, which holds the lock of `events`. Otherwise the rebuild would count events
            # of the users that `forget` is removing.
            with lake.locks.table(EVENTS.name):
                held.enter_context(lake.locks.job("similarity"))
                start_over(lake, job.settings.similarity)
        else:
            held.enter_context(lake.locks.job("similarity"))
        run = update_similarity(lake, job.settings.similarity, trigger=job.arguments.trigger)
    changed = [table for table in (BASKETS, CO_INTERACTIONS) if run.micro_batches]
    changed += [SIMILAR_ITEMS] if run.refreshed else []
    job.summary([similarity_line(run)], read=read, written=lake.versions(*changed))


if __name__ == "__main__":
    run_job("similarity", similarity)
