"""Measure this project and the engines that one would otherwise use, on one machine, in one run.

Each side is a process with two threads. Its printed figures are collected here and written as JSON and Markdown. Sides
that work by the same definitions must have the same sums of rows. The benchmark `growth` is also drawn as a picture.
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
from tests.benchmarks.trend_quality import Quality, quality_tables
from tests.environments import python_of
from tests.sessions import PROJECT
from tests.spark_cluster import Cluster

HERE = Path(__file__).parent

OURS = "lambda-spark"
THIS = "this"
"""The name of the Python environment of the tests. It includes DuckDB, so the tests need no second environment."""
SIDES = {
    "ours": None,
    "duckdb": THIS,
    "polars": "single-machine",
    "implicit": "single-machine",
    "replay": "spark-peers",
    "sar": "spark-peers",
}
"""The Python environment in which each measured engine runs. None stands for this project's own code."""
SAME_WORK = ("similarity", "neighbours")
"""Two names of measured work that both compute similar products. The definitions of similarity may differ."""
HISTORY = (1, 10, 100)
"""Lengths of history, in days, after which `growth` measures micro-batches."""
MICRO_BATCHES = 10
MASTERS = ("local[1]", "local[2]", "spark")
"""Spark masters that `cores` compares: one core, two cores, and a standalone cluster of two one-core workers."""

Results = tuple[list[Figures], list[Figures], str]
"""The result of a benchmark: the printed lines, a row for each engine and work, and the rows as Markdown."""


def main(arguments: Sequence[str]) -> int:
    benchmarks = {"layers": layers, "growth": growth, "cores": cores, "month": month, "trends": trends}
    parser = argparse.ArgumentParser(prog="./spark-submit.sh benchmark", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"benchmarks to run: {', '.join(benchmarks)} (default: layers)"
    )
    parser.add_argument(
        "--events",
        type=lambda text: int(float(text)),
        default=5_000_000,
        help="events of the made-up store (default 5e6)",
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each layer (default 5)")
    parser.add_argument("--stores", type=int, default=20, help="trends: number of made-up stores (default 20)")
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="sides to measure (default: all)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmark-results"),
        help="folder for the results (default: benchmark-results)",
    )
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - benchmarks.keys()
    if unknown:
        parser.error(f"there is no benchmark '{min(unknown)}'. The benchmarks are {', '.join(benchmarks)}.")
    chosen.out.mkdir(parents=True, exist_ok=True)
    all_errors = []
    for name in chosen.names or ["layers"]:
        with TemporaryDirectory(prefix="benchmark-") as folder:
            figures, rows, table = benchmarks[name](Path(folder), chosen)
        errors = [line["failed"] for line in figures if "failed" in line] + differing_sums(figures)
        title = f"{name}, {chosen.events:,} events, {os.cpu_count()} cores, Python {platform.python_version()}"
        text = "\n\n".join([title, table, *filter(None, [versions(figures)]), *errors])
        results = {"title": title, "rows": rows, "lines": figures}
        (chosen.out / f"{name}.json").write_text(json.dumps(results, indent=1))
        (chosen.out / f"{name}.md").write_text(f"{text}\n")
        print(text)
        if name == "growth":
            draw(chosen.out)
        all_errors += errors
    return 1 if all_errors else 0


def layers(folder: Path, chosen: argparse.Namespace) -> Results:
    """Measure each layer of each side on one store."""
    make_store(folder, chosen.events, "parquet", "csv")
    figures = []
    for side in chosen.sides:
        say(f"measuring {side}")
        environment = SIDES[side]
        if environment is None:
            figures += lines_of(ours(folder, "ours", chosen.events, chosen.runs))
            continue
        scratch = [folder / side] if environment == "spark-peers" else []
        script = HERE / ("spark_peers.py" if environment == "spark-peers" else "single_machine.py")
        figures += lines_of([python_for(environment), script, side, folder / "parquet", *scratch, chosen.runs])
    rows = with_ratios(summary(figures), OURS, of_base=True, same_work=SAME_WORK)
    return figures, rows, markdown(rows, "ours takes")


def growth(folder: Path, chosen: argparse.Namespace) -> Results:
    """Measure micro-batches after histories of increasing length. `--events` is the size of the longest one."""
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
        say("measuring DuckDB, which recomputes everything")
        python = python_for(THIS)
        recompute = lines_of([python, HERE / "single_machine.py", "duckdb", of_days / "store", 1, "similarity"])
        figures += recompute
        recompute_cpu = sum(line["cpu_seconds"] for line in recompute if line.get("work") == "similarity")
        longest = f"{HISTORY[-1]} days"
        ingestion, pairs = (
            next(row["cpu_s"] for row in rows if (row["who"], row["work"]) == (longest, f"micro-batch of {layer}"))
            for layer in ("ingest", "similarity")
        )
        if recompute_cpu:
            table += (
                f"\n\nAfter {longest}, the pairs of a micro-batch take {pairs:.1f} CPU seconds and its ingestion takes "
                f"{ingestion:.1f}. DuckDB recomputes all pairs and neighbours in {recompute_cpu:.1f} CPU seconds. The "
                f"pairs take {pairs / recompute_cpu:.2f} times as much as DuckDB. Pairs and ingestion together take "
                f"{(ingestion + pairs) / recompute_cpu:.2f} times as much."
            )
    return figures, rows, table


def cores(folder: Path, chosen: argparse.Namespace) -> Results:
    """Measure each layer of this project on one core, on two cores, and on a standalone cluster of two workers."""
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
    """Measure the commands that a user types, on a month of a large store with a crawler and a bestseller."""
    figures = lines_of([sys.executable, "-m", "tests.benchmarks.month", folder, chosen.events])
    rows = summary(figures)
    tables = [line for line in figures if "files" in line]
    sizes = [f"| {line['table']} | {line['files']:,} | {line['bytes'] / 1e6:,.1f} |" for line in tables]
    return figures, rows, "\n".join([markdown(rows), "", "| table | files | MB |", "| --- | --- | --- |", *sizes])


def trends(folder: Path, chosen: argparse.Namespace) -> Results:
    """Measure how well the batch layer and other methods find the trends that were built into made-up stores."""
    say(f"finding planted trends in {chosen.stores} made-up stores")
    figures = lines_of([sys.executable, "-m", "tests.benchmarks.trend_quality", chosen.stores])
    qualities = [Quality(**line) for line in figures if "failed" not in line]
    return figures, [], f"```\n{quality_tables(qualities)}\n```"


def python_for(environment: str) -> Path:
    """Return the Python interpreter of the environment in which another engine runs."""
    return Path(sys.executable) if environment == THIS else python_of(HERE / f"requirements-{environment}.txt")


def make_store(folder: Path, events: int, *forms: str) -> None:
    # Make no repeated events, because this project removes repeats and the other engines do not.
    store = StoreSettings(events=events, seed=1, repeat_share=0.0)
    for form in forms:
        say(f"making a store of {events:,} events ({form})")
        write_store(store, folder / form, form, plants_file=folder / f"{form}.json")


def ours(folder: Path, name: str, events: int, runs: int, *master: str) -> list[object]:
    (folder / name).mkdir()
    return [sys.executable, "-m", "tests.benchmarks.ours", folder / "csv", folder / name, events, runs, *master]


def draw(out: Path) -> None:
    """Draw the figures of `growth` as a picture in the same folder."""
    python = python_of(HERE / "requirements-plot.txt")
    subprocess.run([python, HERE / "plot.py", out / "growth.json", out / "growth.png"], check=True)


def lines_of(command: Sequence[object]) -> list[Figures]:
    """Run a command and return its printed lines of JSON, with one more line if the command failed."""
    environment = {**os.environ}
    if str(command[0]) != sys.executable:
        # Unset the paths of this project's Spark, because the other environments have a Spark of their own.
        environment = {key: value for key, value in environment.items() if key not in ("SPARK_HOME", "PYTHONPATH")}
        environment["PYSPARK_PYTHON"] = str(command[0])
    words = [str(word) for word in command]
    process = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, env=environment, cwd=PROJECT)
    figures = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    if process.returncode != 0:
        figures.append({"failed": f"{' '.join(words[1:4])} ended with exit code {process.returncode}"})
    return figures


def differing_sums(figures: Sequence[Figures]) -> list[str]:
    """Return a message for each table whose sums differ between this project and another engine that prints sums."""
    ours = {line["table"]: line["sums"] for line in figures if "sums" in line and line["who"] == OURS}
    return [
        f"{line['who']} and {OURS} have different rows in {line['table']}: "
        f"the sums of {line['who']} are {line['sums']}, ours are {ours[line['table']]}."
        for line in figures
        if "sums" in line and line["table"] in ours and line["sums"] != ours[line["table"]]
    ]


def say(line: str) -> None:
    print(f"benchmark: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
