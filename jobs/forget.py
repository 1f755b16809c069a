"""The `forget` job. It removes users from every table, as if they had never visited the store."""

from pathlib import Path

from lambda_spark.cli.job import Job, run_job
from lambda_spark.errors import UsageError
from lambda_spark.ids import Id, Ids, user_id
from lambda_spark.ingestion.refused_users import user_ids
from lambda_spark.operations.forget import forget, preview
from lambda_spark.report.operations import certificate_lines


def main(job: Job) -> None:
    """Forget the users that the command line names. With --dry-run, only count their rows.

    Raises:
        UsageError: The command line names no users, or names something that is no user id of this lake.
        LakeError: An earlier `forget` of other users was interrupted and must be finished first.
        JobRunningError: Another `forget` is running on the lake.
    """
    arguments = job.arguments
    lake = job.lake()
    ids = asked_for(arguments.user, arguments.users_file, lake.ids)
    before = lake.versions(*lake.present())
    if arguments.dry_run:
        with lake.locks.reader():
            previewed = preview(lake, ids, refuse=arguments.refuse)
        job.summary(certificate_lines(previewed, dry_run=True), read=before, written={})
        return
    with lake.locks.job("forget"):
        done = forget(lake, job.settings, ids, refuse=arguments.refuse, erase=arguments.vacuum)
    job.summary(certificate_lines(done, dry_run=False), read=before, written=lake.written_since(before))


def asked_for(named: list[str], file: Path | None, kind: Ids) -> set[Id]:
    """Collect the ids of the users to forget.

    Args:
        named: User ids from the command line.
        file: Text file with one user id per line, or None.
        kind: The kind of the lake's ids.

    Returns:
        The ids from both.

    Raises:
        UsageError: There are no ids, the file cannot be read, or a text is no user id of this kind.
    """
    ids = {user_id(text, kind) for text in named}
    if file is not None:
        try:
            listed, wrong = user_ids(file.read_text(encoding="utf-8").splitlines(), kind)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--users-file {file}: {error}") from None
        if wrong:
            raise UsageError(f"--users-file {file}: no user id in {', '.join(wrong[:5])}; nothing was forgotten")
        ids |= listed
    if not ids:
        raise UsageError("name users: --user ID…, or --users-file FILE with one id per line")
    return ids


if __name__ == "__main__":
    run_job("forget", main)
