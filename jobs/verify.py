"""The `verify` job. It recomputes each table from `events` and compares the result with the stored table."""

import logging

from lambda_spark.cli.job import Job, run_job
from lambda_spark.operations.forget import is_pending
from lambda_spark.operations.verify import SHOWN, verify
from lambda_spark.storage.tables import TABLES
from lambda_spark.text import shown

logger = logging.getLogger("lambda_spark.jobs")


def main(job: Job) -> int:
    """Print for each table whether it equals the recomputed table, and print rows that differ.

    Returns:
        The exit code, which is 1 if a table differs and otherwise 0.
    """
    lake = job.lake()
    differing: list[str] = []
    unchecked: list[str] = []
    with lake.locks.reader():
        for finding in verify(lake, [TABLES[name] for name in job.arguments.tables]):
            if not finding.against:
                unchecked.append(finding.table)
                logger.info(f"{finding.table}: not checked, the job that computes it has not finished yet")
                continue
            verdict = "DIFFER from" if finding.differs else "equal"
            logger.info(f"{finding.table}: {finding.rows:,} rows {verdict} {finding.against}")
            if finding.differs:
                differing.append(finding.table)
            for title, rows in (("missing", finding.missing), ("surplus", finding.surplus)):
                if rows is not None:
                    print(f"{title} in {finding.table} (up to {SHOWN} rows):")
                    print(shown(rows, SHOWN))
    lines = [f"DIFFERENT: {', '.join(differing)}" if differing else "all tables equal their recompute"]
    if is_pending(lake):
        lines.append("a `forget` is under way, or was interrupted: let it end or start it again, then verify again")
    if unchecked:
        lines.append(f"not checked: {', '.join(unchecked)}")
    job.summary(lines, read=lake.versions(*lake.present()), written={})
    return 1 if differing else 0


if __name__ == "__main__":
    run_job("verify", main)
