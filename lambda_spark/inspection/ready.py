"""Finds the ready description that a sample fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lambda_spark.event_format import FIELDS
from lambda_spark.inspection.description import SOURCES, Description
from lambda_spark.inspection.judge import UnknownColumnError, Verdict, judge
from lambda_spark.inspection.sample import Sample

DEFAULT = "rees46"
"""The description of a log that has none."""
_ENOUGH = 0.8
"""Smallest share of the records that a ready description must read."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A ready description that a sample fits."""

    name: str
    description: Description
    verdict: Verdict
    file: Path


def ready_names(folder: Path = SOURCES) -> list[str]:
    """List the names of the ready descriptions."""
    return sorted(file.stem for file in folder.glob("*.toml"))


def matching(sample: Sample, folder: Path = SOURCES) -> Ready | None:
    """Find the ready description that reads the most records of a sample.

    Args:
        sample: The sample.
        folder: Folder of the ready descriptions.

    Returns:
        None if each of them names a column that is missing, or rejects more than a fifth of the records.
    """
    fitting = [ready for ready in _candidates(sample, folder) if ready.verdict.used_share >= _ENOUGH]
    return max(fitting, key=_quality, default=None)


def _candidates(sample: Sample, folder: Path) -> Iterator[Ready]:
    for name in ready_names(folder):
        file = folder / f"{name}.toml"
        description = Description.load(file)
        if name == DEFAULT:
            # A log with REES46's names needs no description. One without a header has to have all nine columns.
            description = replace(description, header=False, columns=FIELDS)
        if not _is_written_alike(sample, description):
            continue
        try:
            verdict = judge(sample, description)
        except UnknownColumnError:
            continue
        if verdict.events:
            yield Ready(name, description, verdict, file)


def _is_written_alike(sample: Sample, description: Description) -> bool:
    dialect = sample.dialect
    if dialect.format != description.format:
        return False
    if dialect.format == "csv":
        same = (dialect.header is not False) == description.header if description.header else dialect.header is not True
        return same and dialect.delimiter == description.delimiter
    # A description of JSON names paths that need not stand in every record. Its array and its event names decide.
    return not description.explode or description.explode in sample.arrays


def _quality(ready: Ready) -> tuple[float, int]:
    return ready.verdict.used_share, len(ready.description.fields)
