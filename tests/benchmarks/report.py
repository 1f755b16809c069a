"""Functions that summarise a benchmark's figures and write them as Markdown tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Figures = dict[str, Any]
"""A line of JSON printed by a measured engine, in one of three forms.

- A measured piece of work has who, work, seconds and cpu_seconds, and optionally events, bytes_read and files_read.
- The peak memory has who, work `all` and peak_bytes.
- The versions of the measured packages have who and versions.
"""


def summary(figures: Iterable[Figures]) -> list[Figures]:
    """Summarise the repeated runs of each engine (`who`) and piece of work (`work`).

    Returns:
        One row per `who` and `work`: the number of runs, the median, least and most seconds, the median CPU
        seconds and the peak memory in bytes. The medians of events, bytes_read and files_read are None if a
        run lacks them.
    """
    runs: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    peaks: dict[str, int] = {}
    for line in figures:
        if "seconds" in line:
            runs[line["work"], line["who"]].append(line)
        elif "peak_bytes" in line:
            peaks[line["who"]] = line["peak_bytes"]

    def median_of(lines: Sequence[Figures], name: str) -> float | None:
        return median(line[name] for line in lines) if all(name in line for line in lines) else None

    return [
        {
            "work": work,
            "who": who,
            "runs": len(lines),
            "median_s": median(line["seconds"] for line in lines),
            "least_s": min(line["seconds"] for line in lines),
            "most_s": max(line["seconds"] for line in lines),
            "cpu_s": median(line["cpu_seconds"] for line in lines),
            "peak_bytes": peaks.get(who),
            **{name: median_of(lines, name) for name in ("events", "bytes_read", "files_read")},
        }
        for (work, who), lines in runs.items()
    ]


def with_ratios(rows: Sequence[Figures], base: str, *, of_base: bool, same_work: Sequence[str] = ()) -> list[Figures]:
    """Add to each row a `ratio` of its median time and the median time of a base engine.

    Both times are for the same work.

    Args:
        rows: The result of `summary`.
        base: The `who` of the base engine.
        of_base: Whether the ratio is the base's time divided by the row's time. Otherwise it is the inverse.
        same_work: Names that stand for the same work. The base engine has figures for one of these names.

    Returns:
        The rows with `ratio`. The ratio is None if the base has no time for the work.
    """
    medians = {row["work"]: row["median_s"] for row in rows if row["who"] == base}
    shared = next((medians[work] for work in same_work if work in medians), None)

    def ratio(row: Figures) -> float | None:
        base_s = medians.get(row["work"], shared if row["work"] in same_work else None)
        if not base_s:
            return None
        return float(base_s / row["median_s"] if of_base else row["median_s"] / base_s)

    return [{**row, "ratio": ratio(row)} for row in rows]


def markdown(rows: Sequence[Figures], ratio: str = "") -> str:
    """Return the rows as a Markdown table, and leave out columns that are empty in all rows.

    Args:
        rows: The result of `summary` or `with_ratios`.
        ratio: The heading of the column with the ratios.
    """
    columns = {
        "work": lambda row: row["work"],
        "by": lambda row: row["who"],
        "seconds (least to most)": _seconds,
        "CPU seconds": lambda row: f"{row['cpu_s']:.2f}",
        "events a second": lambda row: f"{row['events'] / row['median_s']:,.0f}" if row["events"] else "",
        "MB read": lambda row: f"{row['bytes_read'] / 1e6:.1f}" if row["bytes_read"] is not None else "",
        "files read": lambda row: f"{row['files_read']:.0f}" if row["files_read"] is not None else "",
        "peak memory": lambda row: f"{row['peak_bytes'] / 2**30:.1f} GiB" if row["peak_bytes"] else "",
        ratio: lambda row: "" if row.get("ratio") is None else f"{row['ratio']:.2f} ×",
    }
    cells = {name: [cell(row) for row in rows] for name, cell in columns.items()}
    shown = [name for name, column in cells.items() if any(column)]
    lines = [shown, ["---"] * len(shown), *zip(*(cells[name] for name in shown), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _seconds(row: Figures) -> str:
    spread = f" ({row['least_s']:.2f} to {row['most_s']:.2f}, {row['runs']} runs)" if row["runs"] > 1 else ""
    return f"{row['median_s']:.2f}{spread}"


def versions(figures: Iterable[Figures]) -> str:
    """Return one line with the names and versions of the measured packages."""
    numbers = {name: number for line in figures for name, number in line.get("versions", {}).items()}
    return ", ".join(f"{name} {number}" for name, number in sorted(numbers.items()))
