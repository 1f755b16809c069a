"""The benchmark's figures as tables for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Figures = dict[str, Any]
"""One line of a side's output: who, work, seconds, cpu_seconds, and maybe events, bytes_read, files_read; or who, work
`all` and peak_bytes; or who and versions."""


def summary(figures: Iterable[Figures]) -> list[Figures]:
    """One row per side and work: runs, median, least and most seconds, and medians of what else was measured."""
    runs: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    peaks: dict[str, int] = {}
    for one in figures:
        if "seconds" in one:
            runs[one["work"], one["who"]].append(one)
        elif "peak_bytes" in one:
            peaks[one["who"]] = one["peak_bytes"]

    def middle(each: Sequence[Figures], name: str) -> float | None:
        return median(one[name] for one in each) if all(name in one for one in each) else None

    return [
        {
            "work": work,
            "who": who,
            "runs": len(each),
            "median_s": median(one["seconds"] for one in each),
            "least_s": min(one["seconds"] for one in each),
            "most_s": max(one["seconds"] for one in each),
            "cpu_s": median(one["cpu_seconds"] for one in each),
            "peak_bytes": peaks.get(who),
            **{name: middle(each, name) for name in ("events", "bytes_read", "files_read")},
        }
        for (work, who), each in runs.items()
    ]


def with_ratios(rows: Sequence[Figures], base: str, *, of_base: bool, same_work: Sequence[str] = ()) -> list[Figures]:
    """Each row with `ratio`: its median in multiples of that of the base for the same work, or the other way round.

    None where the base has no figure. The works of `same_work` count as one: the base has one of them.
    """
    medians = {row["work"]: row["median_s"] for row in rows if row["who"] == base}
    shared = next((medians[work] for work in same_work if work in medians), None)

    def ratio(row: Figures) -> float | None:
        of = medians.get(row["work"], shared if row["work"] in same_work else None)
        if not of:
            return None
        return float(of / row["median_s"] if of_base else row["median_s"] / of)

    return [{**row, "ratio": ratio(row)} for row in rows]


def markdown(rows: Sequence[Figures], ratio: str = "") -> str:
    """A table in Markdown, with those columns only that have figures; `ratio` is what it is called."""
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
    """What was measured, in a line."""
    found = {name: number for one in figures for name, number in one.get("versions", {}).items()}
    return ", ".join(f"{name} {number}" for name, number in sorted(found.items()))
