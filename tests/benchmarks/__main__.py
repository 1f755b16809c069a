"""`./spark-submit.sh benchmark`: this project beside what one would otherwise use, on one machine, in one run.

Each side is a process with two threads; what it prints is gathered here, checked where the definitions are the same,
and written as JSON and as Markdown.
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

from lambda_spark.store.files import write_store
from lambda_spark.store.model import StoreSettings
from tests.benchmarks.report import Figures, markdown, summary, with_ratios
from tests.environments import python_of
from tests.sessions import PROJECT

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
HISTORY = (1, 10, 100)
"""Days of history that the growth is measured after."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./spark-submit.sh benchmark", description=__doc__.partition(": ")[2])
    parser.add_argument("names", nargs="*", metavar="NAME", help="layers (default) or growth")
    parser.add_argument("--events", type=lambda text: int(float(text)), default=5_000_000, help="size of the store")
    parser.add_argument("--runs", type=int, default=3, help="how often each layer is measured (default 3)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="who is measured (default all)")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"), help="folder for the results")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - {"layers", "growth"}
    if unknown:
        parser.error(f"there is no benchmark '{min(unknown)}'; there are layers and growth")
    chosen.out.mkdir(parents=True, exist_ok=True)
    complaints = []
    for name in chosen.names or ["layers"]:
        with TemporaryDirectory(prefix="benchmark-") as folder:
            if name == "layers":
                figures = layers(Path(folder), chosen.events, chosen.runs, chosen.sides)
            else:
                figures = growth(Path(folder), chosen.events)
        found = [one["failed"] for one in figures if "failed" in one] + differing_sums(figures)
        rows = with_ratios(summary(figures), OURS)
        title = f"{name}, {chosen.events:,} events, {os.cpu_count()} cores, Python {platform.python_version()}"
        table = "\n\n".join([title, markdown(rows), *found])
        (chosen.out / f"{name}.json").write_text(json.dumps({"title": title, "rows": rows, "lines": figures}, indent=1))
        (chosen.out / f"{name}.md").write_text(f"{table}\n")
        print(table)
        complaints += found
    return 1 if complaints else 0


def layers(folder: Path, events: int, runs: int, sides: Sequence[str]) -> list[Figures]:
    """Each layer of each side on one store."""
    # Without repeats, which only our side would leave out.
    store = StoreSettings(events=events, seed=1, repeat_share=0.0)
    for form in ("parquet", "csv"):
        say(f"making a store of {events:,} events ({form})")
        write_store(store, folder / form, form, plants_file=folder / f"{form}.json")
    figures = []
    for side in sides:
        say(f"measuring {side}")
        environment = SIDES[side]
        if environment is None:
            (folder / "ours").mkdir()
            command = [sys.executable, "-m", "tests.benchmarks.ours", folder / "csv", folder / "ours" / "lake", runs]
        else:
            python = python_of(HERE / f"requirements-{environment}.txt")
            scratch = [folder / side] if environment == "spark-peers" else []
            command = [python, HERE / f"{environment.replace('-', '_')}.py", side, folder / "parquet", *scratch, runs]
        figures += lines_of(command)
    return figures


def growth(folder: Path, events: int) -> list[Figures]:
    """Micro-batches after ever more history; `events` is the size of the longest."""
    figures = []
    for days in HISTORY:
        say(f"measuring micro-batches after {days} days")
        (folder / str(days)).mkdir()
        figures += lines_of(
            [sys.executable, "-m", "tests.benchmarks.growth", folder / str(days), events // HISTORY[-1], days, 10]
        )
    return figures


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
