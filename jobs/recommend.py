"""The `recommend` job, which is the serving layer. It computes lists of recommended products for users."""

from lambda_spark.cli.job import Job, run_job
from lambda_spark.ids import user_id
from lambda_spark.report.pipeline import recommendation_line
from lambda_spark.report.result import user_result
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.storage.tables import RECOMMENDATIONS


def recommend(job: Job) -> None:
    """Write the lists of all active users. With --user, print the list of one user and write nothing.

    Raises:
        UsageError: The user that --user names is no user id of this lake.
        LakeError: A table that `recommend` reads is missing.
        JobRunningError: Another `recommend` is running on the lake.
    """
    lake = job.lake()
    if job.arguments.user is not None:
        with lake.locks.reader():
            print(user_result(lake, job.settings, user_id(job.arguments.user, lake.ids)))
        return
    job.record(lake)
    with lake.locks.job("recommend"):
        run = update_recommendations(lake, job.settings.recommendations)
    written = {} if run.written is None else {RECOMMENDATIONS.name: run.written}
    job.summary([recommendation_line(run)], read=run.versions_read, written=written)


if __name__ == "__main__":
    run_job("recommend", recommend)
