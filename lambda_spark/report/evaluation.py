"""What an evaluation found, as tables for a person and as JSON lines for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from lambda_spark.report.text import table

_SHOWN = (
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
_ID = ["method", "protocol", "repeats", "slice", "queries", "targets"]


def evaluation_tables(rows: pd.DataFrame) -> str:
    """All methods on all targets, without and with repeats, then the recommender by slice."""
    parts = []
    for (protocol, repeats), part in rows[rows["slice"] == "all"].groupby(["protocol", "repeats"], sort=False):
        counts = f"{part['queries'].iloc[0]:,} queries, {part['targets'].iloc[0]:,} targets"
        parts.append(f"{protocol}, {'repeats count' if repeats else 'without repeats'}: {counts}")
        wide = part.pivot(index="method", columns="metric", values="value").reindex(part["method"].unique())
        shown = [
            {"method": name, **{m: row[m] if m in row and pd.notna(row[m]) else None for m in _SHOWN}}
            for name, row in wide.iterrows()
        ]
        lines = [{**row, "mrr@20 - recommend's": _interval(part, str(row["method"]))} for row in shown]
        parts.append(table(lines, dict.fromkeys(_SHOWN, ".3f")) + "\n")
    ours = rows[(rows["method"] == "recommend") & rows["metric"].isin(["hr@20", "mrr@20", "ndcg@10"])]
    wide = ours.pivot_table(
        index=["protocol", "repeats", "slice", "queries"], columns="metric", values="value"
    ).reset_index()
    parts.append("recommend by slice")
    parts.append(table(wide.to_dict("records"), dict.fromkeys(("hr@20", "mrr@20", "ndcg@10"), ".3f")))
    return "\n".join(parts)


def evaluation_lines(rows: pd.DataFrame) -> Iterator[str]:
    """One JSON object per method, protocol, repeats and slice, with the counts and each metric."""
    for identity, part in rows.groupby(_ID, sort=False):
        values = dict(zip(part["metric"], part["value"].round(6), strict=True))
        yield json.dumps({**dict(zip(_ID, identity, strict=True)), **values}, default=lambda value: value.item())


def _interval(rows: pd.DataFrame, method: str) -> str | None:
    row = rows[(rows["method"] == method) & (rows["metric"] == "mrr@20")].iloc[0]
    return None if pd.isna(row.difference) else f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
