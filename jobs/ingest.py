"""The `ingest` job. It reads event files or a Kafka topic into the tables events, products and rejected_events."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.cli.pipeline import ingest_from_arguments


def main(job: Job) -> int:
    """Ingest new files or messages and end. With an interval as --trigger, keep running.

    Raises:
        JobRunningError: Another process is ingesting files into this lake, or is reading the same topic.
    """
    lake = job.record(job.lake(create=True))
    before = lake.versions(*lake.present())
    lines, code = ingest_from_arguments(job, lake, job.sources(), trigger=job.arguments.trigger)
    job.summary(lines, read={}, written=lake.written_since(before))
    return code


if __name__ == "__main__":
    run_job("ingest", main)
