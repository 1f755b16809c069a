"""`./spark-submit.sh benchmark`: this project beside what one would otherwise use, on one machine, in one run.

Each side is a process with two threads; what it prints is gathered here, checked where the definitions are the same,
and written as JSON and as Markdown, the growth also as a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.benchmarks.report import Figures, markdown, summary, versions, with_ratios
from tests.benchmarks.trend_quality import Quality, rendered
from tests.environments import python_of
from tests.sessions import PROJECT
from tests.spark_cluster import Cluster

HERE = Path(__file__).parent

OURS = "lambda-spark"
SIDES = {
    "ours": None,
    "duckdb": "single-machine",
    "polars": "single-machine",
    "implicit": "single-machine",
    "replay": "spark-peers",
    "sar": "spark-peers",
}
"""Side: its environment; None is this one."""
SAME_WORK = ("similarity", "neighbours")
"""Pairs and the best of them, by one definition or another."""
HISTORY = (1, 10, 100)
"""Days of history that the growth is measured after."""
MICRO_BATCHES = 10
MASTERS = ("local[1]", "local[2]", "spark")
"""One core, two, and two workers of a standalone cluster with one each."""

Results = tuple[list[Figures], list[Figures], str]
"""What a benchmark returns: what the sides printed, a row for each side and work, and these as Markdown."""


def main(arguments: Sequence[str]) -> int:
    benchmarks = {"layers": layers, "growth": growth, "cores": cores, "month": month, "trends": trends}
    parser = argparse.ArgumentParser(prog="./spark-submit.sh benchmark", description=__doc__.partition(": ")[2])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(benchmarks)} (default: layers)")
    parser.add_argument("--events", type=lambda text: int(float(text)), default=5_000_000, help="size of the store")
    parser.add_argument("--runs", type=int, default=5, help="how often each layer is measured (default 5)")
    parser.add_argument("--stores", type=int, default=20, help="trends: how many stores are made up (default 20)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="who is measured (default all)")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), help="folder for the results")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - benchmarks.keys()
    if unknown:
        parser.error(f"there is no benchmark '{min(unknown)}'; there are {', '.join(benchmarks)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    complaints = []
    for name in chosen.names or ["layers"]:
        with TemporaryDirectory(prefix="benchmark-") as folder:
            figures, rows, table = benchmarks[name](Path(folder), chosen)
        found = [one["failed"] for one in figures if "failed" in one] + differing_sums(figures)
        title = f"{name}, {chosen.events:,} events, {os.cpu_count()} cores, Python {platform.python_version()}"
        text = "\n\n".join([title, table, *filter(None, [versions(figures)]), *found])
        results = {"title": title, "rows": rows, "lines": figures}
        (chosen.out / f"{name}.json").write_text(json.dumps(results, indent=1))
        (chosen.out / f"{name}.md").write_text(f"{text}\n")
        print(text)
        if name == "growth":
            draw(chosen.out)
        complaints += found
    return 1 if complaints else 0


def layers(folder: Path, chosen: argparse.Namespace) -> Results:
    """Each layer of each side on one store."""
    make_store(folder, chosen.events, "parquet", "csv")
    figures = []
    for side in chosen.sides:
        say(f"measuring {side}")
        environment = SIDES[side]
        if environment is None:
            figures += lines_of(ours(folder, "ours", chosen.events, chosen.runs))
            continue
        python = python_of(HERE / f"requirements-{environment}.txt")
        scratch = [folder / side] if environment == "spark-peers" else []
        script = HERE / f"{environment.replace('-', '_')}.py"
        figures += lines_of([python, script, side, folder / "parquet", *scratch, chosen.runs])
    rows = with_ratios(summary(figures), OURS, of_base=True, same_work=SAME_WORK)
    return figures, rows, markdown(rows, "ours takes")


def growth(folder: Path, chosen: argparse.Namespace) -> Results:
    """Micro-batches after ever more history; `--events` is the size of the longest."""
    figures = []
    for days in HISTORY:
        say(f"measuring micro-batches after {days} days")
        of_days = folder / str(days)
        of_days.mkdir()
        command = [sys.executable, "-m", "tests.benchmarks.growth", of_days]
        figures += lines_of([*command, chosen.events // HISTORY[-1], days, MICRO_BATCHES])
    rows = with_ratios(summary(figures), "1 day", of_base=False)
    table = markdown(rows, "of 1 day's")
    if "duckdb" in chosen.sides:
        say("measuring DuckDB, which computes all again")
        python = python_of(HERE / "requirements-single-machine.txt")
        again = lines_of([python, HERE / "single_machine.py", "duckdb", of_days / "store", 1, "similarity"])
        figures += again
        all_again = sum(one["cpu_seconds"] for one in again if one.get("work") == "similarity")
        longest = f"{HISTORY[-1]} days"
        ingestion, pairs = (
            next(row["cpu_s"] for row in rows if (row["who"], row["work"]) == (longest, f"micro-batch of {layer}"))
            for layer in ("ingest", "similarity")
        )
        if all_again:
            table += (
                f"\n\nA micro-batch's pairs take {pairs:.1f} CPU seconds after {longest}, its ingestion before that "
                f"{ingestion:.1f}. DuckDB computes all pairs and neighbours again in {all_again:.1f}: the pairs are "
                f"{pairs / all_again:.2f} times that, both {(ingestion + pairs) / all_again:.2f}."
            )
    return figures, rows, table


def cores(folder: Path, chosen: argparse.Namespace) -> Results:
    """Each of our layers on one core, on two, and on a standalone cluster of two workers."""
    make_store(folder, chosen.events, "csv")
    figures = []
    for master in MASTERS:
        say(f"measuring on {master}")
        if master == "spark":
            (folder / "cluster").mkdir()
            cluster = Cluster(folder / "cluster", workers=2, memory="3g")
            try:
                figures += lines_of(ours(folder, master, chosen.events, chosen.runs, cluster.master))
            finally:
                cluster.stop()
        else:
            figures += lines_of(ours(folder, master, chosen.events, chosen.runs, master))
    rows = with_ratios(summary(figures), f"{OURS} on {MASTERS[0]}", of_base=True)
    return figures, rows, markdown(rows, "speed-up")


def month(folder: Path, chosen: argparse.Namespace) -> Results:
    """A month of a large store with a crawler and a bestseller, by the commands that a user types."""
    figures = lines_of([sys.executable, "-m", "tests.benchmarks.month", folder, chosen.events])
    rows = summary(figures)
    tables = [one for one in figures if "files" in one]
    sizes = [f"| {one['table']} | {one['files']:,} | {one['bytes'] / 1e6:,.1f} |" for one in tables]
    return figures, rows, "\n".join([markdown(rows), "", "| table | files | MB |", "| --- | --- | --- |", *sizes])


def trends(folder: Path, chosen: argparse.Namespace) -> Results:
    """How well planted trends are found, by the batch layer's definition and by others, in stores made up for it."""
    say(f"finding planted trends in {chosen.stores} made-up stores")
    figures = lines_of([sys.executable, "-m", "tests.benchmarks.trend_quality", chosen.stores])
    qualities = [Quality(**one) for one in figures if "failed" not in one]
    return figures, [], f"```\n{rendered(qualities)}\n```"


def make_store(folder: Path, events: int, *forms: str) -> None:
    # Without repeats, which only our side would leave out.
    store = StoreSettings(events=events, seed=1, repeat_share=0.0)
    for form in forms:
        say(f"making a store of {events:,} events ({form})")
        write_store(store, folder / form, form, plants_file=folder / f"{form}.json")


def ours(folder: Path, name: str, events: int, runs: int, *master: str) -> list[object]:
    (folder / name).mkdir()
    return [sys.executable, "-m", "tests.benchmarks.ours", folder / "csv", folder / name, events, runs, *master]


def draw(out: Path) -> None:
    """The growth as a picture beside its figures."""
    python = python_of(HERE / "requirements-plot.txt")
    subprocess.run([python, HERE / "plot.py", out / "growth.json", out / "growth.png"], check=True)


def lines_of(command: Sequence[object]) -> list[Figures]:
    """What a side printed as JSON, its own words apart; where it failed, also a line that says so."""
    environment = {**os.environ}
    if str(command[0]) != sys.executable:
        # The peers bring their own Spark.
        environment = {key: value for key, value in environment.items() if key not in ("SPARK_HOME", "PYTHONPATH")}
        environment["PYSPARK_PYTHON"] = str(command[0])
    words = [str(word) for word in command]
    process = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, env=environment, cwd=PROJECT)
    figures = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    if process.returncode != 0:
        figures.append({"failed": f"{' '.join(words[1:4])} ended with exit code {process.returncode}"})
    return figures


def differing_sums(figures: Sequence[Figures]) -> list[str]:
    """Where two sides that work by the same definition have other rows, in words."""
    ours = {one["table"]: one["sums"] for one in figures if "sums" in one and one["who"] == OURS}
    return [
        f"{one['who']} has other rows in {one['table']}: {one['sums']}, ours {ours[one['table']]}"
        for one in figures
        if "sums" in one and one["table"] in ours and one["sums"] != ours[one["table"]]
    ]


def say(line: str) -> None:
    print(f"benchmark: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
