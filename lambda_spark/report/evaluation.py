"""The results of an evaluation as tables for a person and as JSON lines for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from lambda_spark.evaluation.evaluate import DEPTH
from lambda_spark.evaluation.tuning import CANDIDATES, METRIC, Trial, Tuning, value_of
from lambda_spark.text import table

_SHOWN_METRICS = (
    "hr@5",
    "hr@10",
    "hr@20",
    "mrr@20",
    "ndcg@10",
    "recall@20",
    "coverage@20",
    "diversity@20",
    "novelty@20",
    "rising@20",
)
_IDENTITY = ["method", "protocol", "repeats", "slice", "queries", "targets"]


def evaluation_tables(rows: pd.DataFrame) -> str:
    """Format the results as tables.

    The first tables compare all methods on all targets, without and with repeats. The last table shows the recommender
    on each slice of the targets.

    Args:
        rows: The rows that `evaluate` returns.
    """
    parts = []
    for (protocol, repeats), part in rows[rows["slice"] == "all"].groupby(["protocol", "repeats"], sort=False):
        counts = f"{part['queries'].iloc[0]:,} queries, {part['targets'].iloc[0]:,} targets"
        parts.append(f"{protocol}, {'repeats count' if repeats else 'without repeats'}: {counts}")
        wide = part.pivot(index="method", columns="metric", values="value").reindex(part["method"].unique())
        shown = [
            {"method": name, **{m: row[m] if m in row and pd.notna(row[m]) else None for m in _SHOWN_METRICS}}
            for name, row in wide.iterrows()
        ]
        lines = [{**row, "mrr@20 - recommend's": _interval(part, str(row["method"]))} for row in shown]
        parts.append(table(lines, dict.fromkeys(_SHOWN_METRICS, ".3f")) + "\n")
    ours = rows[(rows["method"] == "recommend") & rows["metric"].isin(["hr@20", "mrr@20", "ndcg@10"])]
    wide = ours.pivot_table(
        index=["protocol", "repeats", "slice", "queries"], columns="metric", values="value"
    ).reset_index()
    parts.append("recommend by slice")
    parts.append(table(wide.to_dict("records"), dict.fromkeys(("hr@20", "mrr@20", "ndcg@10"), ".3f")))
    return "\n".join(parts)


def evaluation_lines(rows: pd.DataFrame) -> Iterator[str]:
    """Format the results as JSON lines.

    Args:
        rows: The rows that `evaluate` returns.

    Yields:
        One JSON object per method, protocol, treatment of repeats and slice, with the counts and each metric. The key
        `differences` maps some metrics to [difference from the recommender's value, low, high]. Here low and high are
        the ends of the 95 % interval. `differences` is empty for the recommender itself and for single slices.
    """
    for identity, part in rows.groupby(_IDENTITY, sort=False):
        values = dict(zip(part["metric"], part["value"].round(6), strict=True))
        compared = part.dropna(subset="difference")
        differences = dict(
            zip(compared["metric"], compared[["difference", "low", "high"]].round(6).to_numpy().tolist(), strict=True)
        )
        line = {**dict(zip(_IDENTITY, identity, strict=True)), **values, "differences": differences}
        yield json.dumps(line, default=lambda value: value.item())


def tuned_settings(tuning: Tuning) -> str:
    """Format the chosen settings as a settings file, with the measured evidence for each value.

    Args:
        tuning: The result of the search.

    Returns:
        TOML for --conf-file.
    """
    lines = [
        f"# Chosen by `evaluate --tune --protocol {tuning.protocol}` ({METRIC}@{DEPTH}; inner split at "
        f"{tuning.split:%Y-%m-%d %H:%M:%S}).",
        "# A value changes only if its gain is certain: the 95 % interval of the difference must lie above 0.",
    ]
    if not tuning.finished:
        lines.append("# The time was over before every setting was tried: start the same command again to continue.")
    for repeats, outcome in tuning.outcome.items():
        lines.append(
            f"# After the outer split, {'repeats count' if repeats else 'without repeats'}: {outcome.value:.4f}, "
            f"{_difference(outcome)} compared with the earlier settings."
        )
    section = ""
    for name, candidates in CANDIDATES.items():
        trials = [trial for trial in tuning.trials if trial.setting == name]
        if name.split(".")[0] != section:
            section = name.split(".")[0]
            lines += ["", f"[{section}]"]
        value = value_of(tuning.chosen, name)
        changed = value != value_of(tuning.begun_with, name)
        lines += [f"#   {trial.candidate}: {trial.value:.4f}, {_difference(trial)}" for trial in trials]
        if len(trials) < len(candidates) - 1:
            lines.append("#   not every value was tried")
        lines.append(f"{name.split('.')[1]} = {json.dumps(value)}{'  # changed' if changed else ''}")
    return "\n".join(lines) + "\n"


def _difference(trial: Trial) -> str:
    return f"{trial.difference:+.4f} ({trial.low:+.4f} to {trial.high:+.4f})"


def _interval(rows: pd.DataFrame, method: str) -> str | None:
    row = rows[(rows["method"] == method) & (rows["metric"] == "mrr@20")].iloc[0]
    return None if pd.isna(row.difference) else f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
