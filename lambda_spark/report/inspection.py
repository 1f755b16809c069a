"""What `inspect` found out about a log, as text for a person."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from lambda_spark.inspection.judge import bare_name, sources_of
from lambda_spark.inspection.proposal import Inspection
from lambda_spark.inspection.ready import DEFAULT
from lambda_spark.text import strip_control_characters, table

_EXAMPLES = 3
_LONGEST = 32
"""Largest number of characters of an example."""


def inspection_text(found: Inspection) -> str:
    """Format what was found out about a log, and the proposed description."""
    parts = [
        "\n".join(_format_lines(found)),
        table(_column_rows(found)),
        "\n".join(_event_lines(found)),
        "\n".join(_verdict_lines(found)),
        "\n".join(_listed("Warnings", found.warnings)),
        "\n".join(_listed("Not sure", [_doubt_line(doubt.why, doubt.candidates) for doubt in found.doubts])),
        found.toml(),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part)


def next_step(found: Inspection, written: str) -> str:
    """Say what to type next.

    Args:
        found: What was found out.
        written: The file that the description was written to, or empty.
    """
    file = " ".join(map(shlex.quote, found.names))
    if not found.is_sure:
        where = f"in {written}" if written else "in the description (--write shop.toml writes it)"
        many = "1 thing is" if len(found.doubts) == 1 else f"{len(found.doubts)} things are"
        return f"{many} not sure: choose a line for each NOT SURE {where}."
    if found.ready and found.ready.name != DEFAULT:
        return f"This is a log that is known. Next: ./spark-submit.sh run {file} --source {found.ready.name}"
    if found.needs_no_description:
        return f"The log needs no description. Next: ./spark-submit.sh run {file}"
    if written:
        return f"Next: ./spark-submit.sh run {file} --source-file {written}"
    return f"Next: this command with --write shop.toml, then ./spark-submit.sh run {file} --source-file shop.toml"


def _format_lines(found: Inspection) -> Iterator[str]:
    sample, dialect = found.sample, found.sample.dialect
    more = f" (of {len(sample.files) + sample.more_files:,} files)" if sample.more_files else ""
    yield strip_control_characters(f"Looked at {', '.join(str(file) for file in sample.files)}{more}")
    words = [f"format {dialect.format}"]
    if dialect.format == "csv":
        header = {True: "a header", False: "no header", None: "perhaps a header"}[dialect.header]
        delimiter = {"\t": "tab"}.get(dialect.delimiter, dialect.delimiter)
        words += [f"delimiter {delimiter}", f"quote {dialect.quote}", header]
    if dialect.format in ("csv", "json"):
        words.append(f"encoding {dialect.encoding}{' with a byte-order mark' if dialect.has_mark else ''}")
    if found.description.explode:
        words.append(f"an event per element of {found.description.explode}")
    yield ", ".join(words)
    if times := found.times:
        pattern = found.description.time_format or times.why
        zone = "" if times.zoned else f", taken as {found.description.time_zone}"
        yield f"times: {pattern}{zone}" if not times.doubt else f"times: not sure, {times.doubt}"
    yield from (strip_control_characters(note) for note in sample.notes)


def _column_rows(found: Inspection) -> list[dict[str, str]]:
    used = {bare_name(choice.source): choice for choice in found.choices.values()}
    rows = []
    for column in found.columns.values():
        choice = used.get(column.name)
        examples = [value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…" for value in column.counts]
        rows.append(
            {
                "column": column.name,
                "type": found.sample.types.get(column.name, ""),
                "filled": f"{column.filled:.0%}",
                "examples": ", ".join(examples[:_EXAMPLES]),
                "field": choice.field if choice else "",
                "why": choice.why if choice else "",
            }
        )
    names = set(found.columns)
    for choice in found.choices.values():
        if bare_name(choice.source) not in names:
            rows.append({"column": choice.source, "type": "", "filled": "", "examples": "", "field": choice.field,
                         "why": choice.why})  # fmt: skip
    if not found.sample.types:
        rows = [{name: value for name, value in row.items() if name != "type"} for row in rows]
    return rows


def _event_lines(found: Inspection) -> Iterator[str]:
    if not found.events:
        return
    meanings = found.description.event_types
    unsure = {doubt.key for doubt in found.doubts if doubt.section == "event_types"}
    yield "Event names"
    for name, number in sorted(found.events.items(), key=lambda one: -one[1])[:20]:
        meaning = "not sure" if name in unsure else meanings.get(name, "" if meanings else name)
        unknown = "ignored" if found.description.on_unknown_event == "ignore" else "not known"
        yield strip_control_characters(f"  {name}: {number:,} → {meaning or unknown}")


def _verdict_lines(found: Inspection) -> Iterator[str]:
    verdict = found.verdict
    rejected = verdict.rejected.total()
    yield (
        f"{verdict.records:,} records looked at = {verdict.events:,} events + {verdict.repeats:,} repeats + "
        f"{rejected:,} rejected + {verdict.ignored:,} ignored"
    )
    for reason, number in verdict.rejected.most_common(10):
        example = f', like "{verdict.examples[reason]}"' if verdict.examples.get(reason) else ""
        yield strip_control_characters(f"  {number:,} rejected: {reason}{example}")
    sources = sources_of(found.sample, found.description)
    for field, number in verdict.nulled.items():
        yield f"  {number:,} events without {field}: {sources.get(field, field)} makes no sense there"


def _listed(title: str, lines: list[str] | tuple[str, ...]) -> list[str]:
    return [title, *(strip_control_characters(f"  - {line}") for line in lines)] if lines else []


def _doubt_line(why: str, candidates: tuple[str, ...]) -> str:
    return f"{why}: {' | '.join(candidates)}" if candidates else why
