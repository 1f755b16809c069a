"""The speed layer: item co-interaction, kept up to date in micro-batches."""

from contextlib import ExitStack

from lambda_spark.cli.job import Job, run_job
from lambda_spark.report.pipeline import similarity_line
from lambda_spark.speed.update import start_over, update
from lambda_spark.storage.tables import BASKETS, CO_INTERACTIONS, EVENTS, SIMILAR_ITEMS


def similarity(job: Job) -> None:
    lake = job.record(job.lake())
    read = lake.versions(EVENTS)
    with ExitStack() as held:
        if job.arguments.rebuild:
            # It would count the users again who are being forgotten; whoever does that holds the table meanwhile.
            with lake.locks.table(EVENTS.name):
                held.enter_context(lake.locks.job("similarity"))
                start_over(lake, job.settings.similarity, job.say)
        else:
            held.enter_context(lake.locks.job("similarity"))
        run = update(lake, job.settings.similarity, trigger=job.arguments.trigger, progress=job.say)
    changed = [table for table in (BASKETS, CO_INTERACTIONS) if run.micro_batches]
    changed += [SIMILAR_ITEMS] if run.refreshed else []
    job.summary([similarity_line(run)], read=read, written=lake.versions(*changed))


if __name__ == "__main__":
    run_job("similarity", similarity)
