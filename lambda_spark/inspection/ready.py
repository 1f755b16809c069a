"""Finds the ready description that a sample fits."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lambda_spark.event_format import FIELDS
from lambda_spark.inspection.description import SOURCES, load
from lambda_spark.inspection.judge import UnknownColumnError, Verdict, judge
from lambda_spark.inspection.sample import Sample
from lambda_spark.source_description import SourceDescription

DEFAULT = "rees46"
"""The description of a log that has none."""
_ENOUGH = 0.8
"""Smallest share of the records that a ready description must read."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A ready description that a sample fits."""

    name: str
    description: SourceDescription
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
        description = load(file)
        if name == DEFAULT:
            # A log with REES46's names needs no description. One without a header has to have all nine columns.
            description = replace(description, header=False, columns=FIELDS)
        if not _is_written_alike(sample, name, description, folder):
            continue
        try:
            verdict = judge(sample, description)
        except UnknownColumnError:
            continue
        if verdict.events:
            yield Ready(name, description, verdict, file)


def _is_written_alike(sample: Sample, name: str, description: SourceDescription, folder: Path) -> bool:
    dialect = sample.dialect
    if dialect.format != description.format:
        return False
    if dialect.format == "json":
        # Paths need not stand in every record. The array decides, and whether the records can be read.
        return not description.explode or description.explode in sample.arrays
    if dialect.delimiter != description.delimiter or dialect.header is not description.header:
        return False
    if name == DEFAULT:
        return True
    known = _lines(folder / "samples" / f"{name}.csv", description.delimiter)
    if description.header:
        # Another log may have the same few names among its columns, so all names have to be the same. A column without
        # a name is the row number that pandas writes.
        return {column for column in sample.columns if column} == set(known[0])
    return len(known[0]) == len(sample.columns) and _has_same_forms(sample, known)


def _lines(file: Path, delimiter: str) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.reader(text, delimiter=delimiter))


def _has_same_forms(sample: Sample, known: list[list[str]]) -> bool:
    """Return whether the values of each column have the forms of the ready description's sample."""
    columns = zip(*(row.values() for row in sample.rows()), strict=True)
    for values, examples in zip(columns, zip(*known, strict=True), strict=True):
        forms = {_form(example) for example in examples}
        if sum(_form(value or "") in forms for value in values) < _ENOUGH * len(values):
            return False
    return True


def _form(value: str) -> str:
    """Reduce a value to its form: a whole number, one letter, a word, or its signs with 9 for each digit."""
    if re.fullmatch(r"-?\d+", value):
        return "number"
    if value.isalpha():
        return "letter" if len(value) == 1 else "word"
    return re.sub(r"\d", "9", value)


def _quality(ready: Ready) -> tuple[float, int]:
    return ready.verdict.used_share, len(ready.description.fields)
