"""The `history` job. It lists what each job wrote, when, and from which versions of which tables."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.operations.history import history
from lambda_spark.report.operations import history_table


def main(job: Job) -> None:
    """Print the newest versions of all tables together, newest first."""
    print(history_table(history(job.lake(), job.arguments.limit)))


if __name__ == "__main__":
    run_job("history", main)
