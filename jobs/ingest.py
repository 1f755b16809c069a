"""Event files into events, products and rejected_events."""

from lambda_spark.events.ingest import ingest
from lambda_spark.job import Job, run_job
from lambda_spark.operations.chain import account_lines
from lambda_spark.tables import EVENTS, INGESTED_FILES, PRODUCTS, REJECTED_EVENTS


def main(job: Job) -> None:
    lake = job.lake(create=True)
    with lake.locks.job("ingest"):
        account = ingest(lake, job.sources(), job.settings.ingest, trigger=job.arguments.trigger, progress=job.say)
    written = lake.versions(EVENTS, REJECTED_EVENTS, PRODUCTS, INGESTED_FILES)
    job.summary(account_lines(account), read={}, written=written if account.files else {})


if __name__ == "__main__":
    run_job("ingest", main)
