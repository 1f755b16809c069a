"""The `status` job. It reports the state of a lake to a person, a program or Prometheus."""

from datetime import UTC, datetime

from lambda_spark.cli.job import Job, run_job
from lambda_spark.errors import UsageError
from lambda_spark.operations.status import status
from lambda_spark.report.status import prometheus_text, status_json, status_tables, write_whole


def main(job: Job) -> None:
    """Print the state of the lake as tables, or as JSON with --json. With --prometheus, also write the state to a file.

    Raises:
        UsageError: The file that --prometheus names cannot be written.
    """
    lake = job.lake()
    with lake.locks.reader():
        current = status(lake, datetime.now(UTC))
    file = job.arguments.prometheus
    if file is not None:
        try:
            write_whole(file, prometheus_text(current))
        except OSError as error:
            raise UsageError(f"--prometheus {file}: {error.strerror}") from error
    print(status_json(current) if job.arguments.json else status_tables(current))


if __name__ == "__main__":
    run_job("status", main)
