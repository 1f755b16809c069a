"""Users leave: every table as if they had never come."""

from pathlib import Path

from lambda_spark.cli.job import Job, run_job
from lambda_spark.errors import UsageError
from lambda_spark.ingestion.refused_users import user_ids
from lambda_spark.operations.forget import forget, look
from lambda_spark.report.operations import certificate_lines


def main(job: Job) -> None:
    arguments = job.arguments
    ids = asked_for(arguments.user, arguments.users_file)
    lake = job.lake()
    before = lake.versions(*lake.present())
    if arguments.dry_run:
        with lake.locks.reader():
            found = look(lake, ids, refuse=arguments.refuse)
        job.summary(certificate_lines(found, dry_run=True), read=before, written={})
        return
    with lake.locks.job("forget"):
        done = forget(lake, job.settings, ids, refuse=arguments.refuse, erase=arguments.vacuum, progress=job.say)
    job.summary(certificate_lines(done, dry_run=False), read=before, written=lake.written_since(before))


def asked_for(named: list[int], file: Path | None) -> set[int]:
    """The ids of the command line and of the file. Raises UsageError for none, or for a line that is none."""
    ids = set(named)
    if file is not None:
        try:
            listed, wrong = user_ids(file.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--users-file {file}: {error}") from None
        if wrong:
            raise UsageError(f"--users-file {file}: no user id in {', '.join(wrong[:5])}; nothing was forgotten")
        ids |= listed
    if not ids:
        raise UsageError("name users: --user ID…, or --users-file FILE with one id a line")
    return ids


if __name__ == "__main__":
    run_job("forget", main)
