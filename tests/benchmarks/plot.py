"""A script that draws the figures of the benchmark `growth` against the length of a lake's history in days.

    python plot.py GROWTH_JSON PICTURE

The figures are seconds, CPU seconds and MB read per micro-batch. The script runs in a Python environment of its own,
which has matplotlib.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median_high

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PANELS = (("seconds", 1, "seconds"), ("cpu_seconds", 1, "CPU seconds"), ("bytes_read", 1e6, "MB read"))


def main(results: Path, picture: Path) -> None:
    growth = json.loads(results.read_text())
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 4.2), layout="constrained")
    for axis, (name, unit, title) in zip(axes, PANELS, strict=True):
        values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for line in growth["lines"]:
            if line.get("work", "").startswith(("micro-batch", "after")):
                values[line["work"]][int(line["who"].split()[0])].append(line[name] / unit)
        for work, by_days in sorted(values.items(), reverse=True):
            days = sorted(by_days)
            middle = [median_high(by_days[day]) for day in days]
            is_batch = work.startswith("micro-batch")
            [drawn] = axis.plot(days, middle, marker="o", linestyle="-" if is_batch else ":", label=work)
            for day in days if is_batch else ():
                axis.plot([day] * len(by_days[day]), by_days[day], ".", alpha=0.3, color=drawn.get_color())
        # Use logarithmic axes, because they show constant and growing costs together. A cost that grows with the
        # history is a straight line on these axes.
        axis.set(xscale="log", yscale="log", xlabel="days of history", title=title)
        axis.set_xticks(days, [str(day) for day in days])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.suptitle(growth["title"], fontsize="medium")
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
