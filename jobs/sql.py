"""The `sql` job. It runs a Spark SQL query on the tables of the lake."""

from pyspark.errors import AnalysisException, ParseException

from lambda_spark.cli.job import Job, run_job
from lambda_spark.errors import UsageError
from lambda_spark.storage.tables import TABLES
from lambda_spark.text import shown


def sql(job: Job) -> None:
    """Run the query of the command line and print the result.

    Raises:
        UsageError: The query is not valid SQL, or names an unknown table.
    """
    lake = job.lake()
    with lake.locks.reader():
        names = lake.register_views()
        try:
            rows = job.spark.sql(job.arguments.query)
        except (AnalysisException, ParseException) as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), "")
            renamed = "".join(
                f"; {table.former_name} is now called {table.name}"
                for table in TABLES.values()
                if table.former_name and table.former_name in job.arguments.query
            )
            raise UsageError(f"{reason} (the tables are {', '.join(names)}{renamed})") from error
        if rows.columns:
            print(shown(rows, job.arguments.limit))


if __name__ == "__main__":
    run_job("sql", sql)
