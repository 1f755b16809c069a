"""How the lake is, for a person, a program or Prometheus."""

from datetime import UTC, datetime

from lambda_spark.cli.job import Job, run_job
from lambda_spark.errors import UsageError
from lambda_spark.operations.status import status
from lambda_spark.report.status import prometheus_text, status_json, status_tables, write_whole


def main(job: Job) -> None:
    lake = job.lake()
    with lake.locks.reader():
        found = status(lake, datetime.now(UTC))
    file = job.arguments.prometheus
    if file is not None:
        try:
            write_whole(file, prometheus_text(found))
        except OSError as error:
            raise UsageError(f"--prometheus {file}: {error.strerror}") from error
    print(status_json(found) if job.arguments.json else status_tables(found))


if __name__ == "__main__":
    run_job("status", main)
