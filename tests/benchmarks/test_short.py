"""Tests of the benchmark report and of a short benchmark run. Times are not checked, only results."""

import json
import subprocess

import pytest

from tests.benchmarks.report import markdown, summary, with_ratios
from tests.sessions import PROJECT


@pytest.mark.process
def test_our_tables_have_the_same_row_sums_as_duckdb_(tmp_path):
    chosen = ["--events", "5e4", "--runs", "1", "--sides", "ours", "duckdb", "--out", tmp_path]
    done = subprocess.run(
        [PROJECT / "spark-submit.sh", "benchmark", *chosen], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    results = json.loads((tmp_path / "layers.json").read_text())
    sides = {line["who"] for line in results["lines"] if "sums" in line}
    assert sides == {"lambda-spark", "DuckDB"}
    measured = {(row["who"], row["work"]) for row in results["rows"]}
    assert {(who, work) for who in sides for work in ("trends", "similarity", "recommend")} <= measured
    assert "| trends | DuckDB |" in (tmp_path / "layers.md").read_text()


def test_the_report_shows_medians_and_ratios():
    def line(who, work, seconds, **more):
        return {"who": who, "work": work, "seconds": seconds, "cpu_seconds": 2 * seconds, **more}

    figures = [
        *(line("ours", "trends", seconds, events=600) for seconds in (3.0, 2.0, 9.0)),
        line("ours", "similarity", 8.0),
        line("other", "trends", 6.0),
        line("other", "neighbours", 4.0),
        {"who": "ours", "work": "all", "peak_bytes": 2**30},
    ]
    rows = with_ratios(summary(figures), "ours", of_base=True, same_work=("similarity", "neighbours"))
    assert markdown(rows, "ours takes").splitlines() == [
        "| work | by | seconds (least to most) | CPU seconds | events a second | peak memory | ours takes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| trends | ours | 3.00 (2.00 to 9.00, 3 runs) | 6.00 | 200 | 1.0 GiB | 1.00 × |",
        "| similarity | ours | 8.00 | 16.00 |  | 1.0 GiB | 1.00 × |",
        "| trends | other | 6.00 | 12.00 |  |  | 0.50 × |",
        "| neighbours | other | 4.00 | 8.00 |  |  | 2.00 × |",
    ]
    growing = with_ratios(summary(figures), "ours", of_base=False)
    assert [row["ratio"] for row in growing] == [1.0, 1.0, 2.0, None]
