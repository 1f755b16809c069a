"""The benchmark's figures as tables for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Figures = dict[str, Any]
"""One line of a side's output: who, work, seconds, cpu_seconds; or who, work `all` and peak_bytes."""


def summary(figures: Iterable[Figures]) -> list[Figures]:
    """One row per side and work: runs, median, least and most seconds, median CPU seconds, the side's peak memory."""
    runs: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    peaks: dict[str, int] = {}
    for one in figures:
        if "seconds" in one:
            runs[one["work"], one["who"]].append(one)
        elif "peak_bytes" in one:
            peaks[one["who"]] = one["peak_bytes"]
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
        }
        for (work, who), each in runs.items()
    ]


def with_ratios(rows: Sequence[Figures], ours: str) -> list[Figures]:
    """Each row with our median in multiples of its own; 1 for our own rows, None for work that we have no figure of."""
    base = {row["work"]: row["median_s"] for row in rows if row["who"] == ours}
    return [{**row, "ours_takes": base[row["work"]] / row["median_s"] if row["work"] in base else None} for row in rows]


def markdown(rows: Iterable[Figures]) -> str:
    """A table in Markdown."""
    lines = [
        "| work | by | seconds (least to most) | CPU seconds | peak memory | ours takes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = f" ({row['least_s']:.2f} to {row['most_s']:.2f}, {row['runs']} runs)" if row["runs"] > 1 else ""
        peak = f"{row['peak_bytes'] / 2**30:.1f} GiB" if row["peak_bytes"] else ""
        ratio = "" if row["ours_takes"] is None else f"{row['ours_takes']:.2f} ×"
        cells = [row["work"], row["who"], f"{row['median_s']:.2f}{spread}", f"{row['cpu_s']:.2f}", peak, ratio]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
