"""Event files, or a Kafka topic, into events, products and rejected_events."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.cli.pipeline import ingest_as_told


def main(job: Job) -> None:
    lake = job.record(job.lake(create=True))
    before = lake.versions(*lake.present())
    lines = ingest_as_told(job, lake, job.sources(), trigger=job.arguments.trigger, progress=job.say)
    job.summary(lines, read={}, written=lake.written_since(before))


if __name__ == "__main__":
    run_job("ingest", main)
