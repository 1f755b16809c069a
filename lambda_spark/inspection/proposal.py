"""Proposes a source description for a log, by a sample of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lambda_spark.inspection.description import SOURCES, Doubt, assignment, toml_of
from lambda_spark.inspection.fields import Choice, Column, choose_fields, columns_in, event_names
from lambda_spark.inspection.judge import Verdict, bare_name, integer_fault, judge, mapped_rows
from lambda_spark.inspection.names import field_of
from lambda_spark.inspection.ready import DEFAULT, Ready, matching
from lambda_spark.inspection.sample import Row, Sample, read_sample
from lambda_spark.inspection.times import Times, times_of
from lambda_spark.inspection.warnings import warnings_of
from lambda_spark.source_description import SourceDescription

_TELLING = (".csv", ".json", ".jsonl", ".ndjson", ".parquet")
"""Ends of file names that tell the format."""
_NOBODY = ("0", "-1", "guest", "guests", "anonymous", "anonym", "unknown", "gast", "nobody", "none", "not logged in")
"""User ids by which logs mean a guest, in lower case."""
_SEVERAL_TIMES = 3
"""How much more often than any other user `0` must stand for it to mean a guest."""
_MOST = 0.9
"""Share of a column's values that are times of day, for the column to be one of them."""
_RARE = 0.01
"""Share of ids up to which those that are no whole numbers are bad records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found out about a log."""

    names: tuple[str, ...]
    """The files and folders as the user named them."""
    sample: Sample
    columns: Mapping[str, Column]
    choices: Mapping[str, Choice]
    events: Mapping[str, int]
    """Number of records by the log's own event name."""
    description: SourceDescription
    doubts: tuple[Doubt, ...]
    hints: tuple[str, ...]
    verdict: Verdict
    warnings: tuple[str, ...]
    ready: Ready | None

    @property
    def times(self) -> Times | None:
        """How the log writes its times, where that is known."""
        return times_of([row["event_time"] for row in self.verdict.mapped if row["event_time"]][:2000])

    @property
    def is_sure(self) -> bool:
        """Whether nothing is left for a person to decide."""
        return not self.doubts

    @property
    def needs_no_description(self) -> bool:
        """Whether the log is one of REES46's format, which is read without a description."""
        kept = {name: source for name, source in self.description.fields.items() if name != source}
        plain = replace(self.description, fields={}, event_types={}, format="")
        names = all(name == meaning for name, meaning in self.description.event_types.items())
        is_told = self.sample.dialect.format == "delta" or all(map(_tells_format, self.sample.files))
        return self.is_sure and not kept and names and is_told and plain == SourceDescription()

    def toml(self) -> str:
        """Write the proposed description."""
        if self.ready and self.ready.name != DEFAULT:
            return self.ready.file.read_text(encoding="utf-8")
        names = ", ".join(file.name for file in self.sample.files[:3])
        title = f"Proposed by `inspect` for {names}. Read it before you use it."
        return toml_of(self.description, self.doubts, self.hints, title)


def _tells_format(file: Path) -> bool:
    return any(part in _TELLING for part in file.suffixes[-2:])


def inspect(names: Sequence[str | Path], folder: Path = SOURCES) -> Inspection:
    """Look at a sample of a log, and propose a description.

    Args:
        names: Files and folders of one log.
        folder: Folder of the ready descriptions.

    Raises:
        UsageError: A file is missing, empty, or in no format that is known.
    """
    sample = read_sample(names)
    ready = matching(sample, folder)
    if ready:
        return _as_ready(tuple(map(str, names)), sample, ready)
    draft = _Draft(sample, SourceDescription())
    for step in (_describe_files, _find_array, _find_fields, _find_times):
        step(draft)
    mapped = mapped_rows(sample, draft.description, draft.description.fields)
    for judgement in (_find_events, _find_ids, _find_prices):
        judgement(draft, mapped)
    _hint_at_sessions(draft)
    return Inspection(
        names=tuple(map(str, names)),
        sample=sample,
        columns=draft.columns,
        choices=draft.choices,
        events=_event_counts(mapped),
        description=draft.description,
        doubts=tuple(draft.doubts),
        hints=tuple(draft.hints),
        verdict=judge(sample, draft.description),
        warnings=tuple(warnings_of(sample, draft.description, mapped, {doubt.key for doubt in draft.doubts})),
        ready=None,
    )


def _as_ready(names: tuple[str, ...], sample: Sample, ready: Ready) -> Inspection:
    description, mapped = ready.description, ready.verdict.mapped
    why = f"as {ready.name} has it"
    if sample.dialect.format == "csv" and not description.header:
        sample = replace(sample, columns=description.columns, records=[
            dict(zip(description.columns, row.values(), strict=True)) for row in sample.records
        ])  # fmt: skip
    return Inspection(
        names=names,
        sample=sample,
        columns=columns_in(sample, description.explode),
        choices={name: Choice(field=name, source=source, why=why) for name, source in description.fields.items()},
        events=_event_counts(mapped),
        description=description,
        doubts=(),
        hints=(),
        verdict=ready.verdict,
        warnings=tuple(warnings_of(sample, description, mapped)),
        ready=ready,
    )


def _event_counts(mapped: Sequence[Row]) -> Counter[str]:
    return Counter(row["event_type"] for row in mapped if row["event_type"])


@dataclass(slots=True)
class _Draft:
    """A description in the making."""

    sample: Sample
    description: SourceDescription
    columns: Mapping[str, Column] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)
    doubts: list[Doubt] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def set(self, **values: Any) -> None:
        """Set keys of the description."""
        self.description = replace(self.description, **values)

    def doubt(self, key: str, why: str, *candidates: str, section: str = "") -> None:
        """Leave a key to a person."""
        self.doubts.append(Doubt(key=key, why=why, candidates=candidates, section=section))


# --- How the files are written ----------------------------------------------------------------------------------------


def _describe_files(draft: _Draft) -> None:
    sample, dialect = draft.sample, draft.sample.dialect
    is_headless = dialect.format == "csv" and dialect.header is False
    draft.set(
        format=dialect.format,
        delimiter=dialect.delimiter,
        quote=dialect.quote,
        escape=dialect.escape,
        header=not is_headless,
        columns=sample.columns if is_headless else (),
        multiline=dialect.multiline,
        encoding=dialect.encoding,
    )
    if sample.lines_above:
        lines = f"{sample.lines_above} other lines, which are taken for its header"
        draft.doubt("header", f"the table begins below {lines}: remove them")
    elif dialect.header is None:
        first = ", ".join(value or "" for value in sample.records[0].values())
        why = f"every column is a text, so that the first line may be names or a record: {first}"
        draft.doubt("header", why, "header = true", f"header = false   # and columns = {list(sample.columns)}")


def _find_array(draft: _Draft) -> None:
    """Find the array whose elements are an event each."""
    sample = draft.sample
    found = [path for path in sample.arrays if _has_products(sample.rows(path), path)]
    whole = [name for name in sample.columns if _is_product(name)]
    if found and not whole:
        draft.set(explode=found[0])
    if len(found) > 1 or (found and whole):
        candidates = [f'explode = "{path}"' for path in [*found, *([""] if whole else [])]]
        draft.set(explode="")
        draft.doubt("explode", f"{' and '.join(found + whole[:1])} each hold products", *candidates)


def _has_products(rows: Sequence[Row], path: str) -> bool:
    return any(name.startswith(f"{path}.") and _is_product(name) for row in rows for name in row)


def _is_product(name: str) -> bool:
    return (field_of(name) or ("",))[0] == "product_id"


# --- Fields and times -------------------------------------------------------------------------------------------------


def _find_fields(draft: _Draft) -> None:
    draft.columns = columns_in(draft.sample, draft.description.explode)
    draft.choices, doubts = choose_fields(draft.columns, draft.description.explode)
    draft.doubts += doubts
    draft.set(fields={name: choice.source for name, choice in draft.choices.items()})
    used = [choice.source for choice in draft.choices.values()]
    missing = [source for source in used if bare_name(source) in draft.sample.not_in_all]
    if missing:
        draft.doubt("columns", f"some files lack {', '.join(missing)}: files of other columns need a description each")


def _find_times(draft: _Draft) -> None:
    column = draft.columns.get(bare_name(draft.description.fields.get("event_time", "")))
    times = column.times if column else None
    if column is None or times is None:
        return
    if not times.zoned and not times.unit:
        why = f"{column.name} names no zone and is taken as UTC: the shop's zone?"
        draft.hints.append(f'time_zone = "Europe/Berlin"   # {why}')
    if times.doubt:
        draft.doubt(times.candidates[0].split(" = ")[0], times.doubt, *times.candidates)
        return
    draft.set(time_unit=times.unit or "seconds", time_format=times.format)
    if times.days_only:
        _ask_for_clock(draft, column, times)


def _ask_for_clock(draft: _Draft, column: Column, times: Times) -> None:
    """Ask whether another column has the time of day."""
    pattern = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
    clocks = [one for one in draft.columns.values() if one.values and one.share(pattern.fullmatch) > _MOST]
    if not clocks:
        return
    clock = clocks[0]
    seconds = ":ss" if clock.values[0].count(":") == 2 else ""
    joined = assignment("event_time", f"concat({column.source}, ' ', {clock.source})")
    draft.set(fields={name: source for name, source in draft.description.fields.items() if name != "event_time"})
    draft.doubt(
        "event_time",
        f"{column.name} has days, and {clock.name} may have their times",
        assignment("event_time", column.source),
        f'{joined}   # and time_format = "{times.format or "yyyy-MM-dd"} HH:mm{seconds}" above',
        section="fields",
    )


# --- Event names, ids, prices -----------------------------------------------------------------------------------------


def _find_events(draft: _Draft, mapped: Sequence[Row]) -> None:
    source = draft.description.fields.get("event_type", "")
    if not source or "'" in source:
        return
    meanings, doubts = event_names(_event_counts(mapped))
    draft.doubts += doubts
    if doubts or any(word != meaning for word, meaning in meanings.items()):
        draft.set(event_types=meanings)


def _find_ids(draft: _Draft, mapped: Sequence[Row]) -> None:
    """Decide which user ids mean nobody, and whether ids are whole numbers or texts."""
    users = Counter(row["user_id"] for row in mapped if row["user_id"] is not None)
    nobody = _find_nobody(draft, users)
    values = [value for value in users.elements() if value not in nobody]
    products = [row["product_id"] for row in mapped if row["product_id"] is not None]
    if not (_are_texts(values) or _are_texts(products)):
        return
    # As texts, 17850.0 and 17850 would be two ids. As whole numbers they are one anyway.
    fields = dict(draft.description.fields)
    for name, ids in (("user_id", values), ("product_id", products)):
        if sum(bool(re.fullmatch(r"\d+\.0", value)) for value in ids) > 0.5 * len(ids):
            fields[name] = f"regexp_replace({fields[name]}, '[.]0$', '')"
    draft.set(ids="text", fields=fields)


def _are_texts(values: Sequence[str]) -> bool:
    wrong = sum(bool(integer_fault(value)) for value in values)
    return wrong > _RARE * len(values) or any(re.fullmatch(r"\+\d+|0\d+", value) for value in values)


def _find_nobody(draft: _Draft, users: Counter[str]) -> list[str]:
    markers = [user for user in users if user.lower() in _NOBODY]
    others = max((number for user, number in users.items() if user not in markers), default=0)
    sure = []
    for user in sorted(markers):
        # No person has the id -1 or a word like guest. The id 0 may be a person's, where ids begin at 0.
        if user != "0" or users[user] >= _SEVERAL_TIMES * others:
            sure.append(user)
        elif users[user] > others:
            why = f'the user "0" has more records ({users[user]:,}) than any other: a guest or a person'
            draft.doubt("nobody", why, 'nobody = ["0"]', "nobody = []")
    draft.set(nobody=tuple(sure))
    return sure


def _find_prices(draft: _Draft, mapped: Sequence[Row]) -> None:
    prices = [row["price"] for row in mapped if row["price"]]
    commas = [price for price in prices if re.fullmatch(r"-?[\d.]*\d,\d+", price)]
    if not commas or len(commas) <= 0.5 * len(prices):
        return
    if all(re.search(r",\d{3}$", price) for price in commas):
        why = f'"{commas[0]}" may be a thousand and more, or a number with three decimals'
        draft.doubt("decimal_comma", why, "decimal_comma = true", "decimal_comma = false")
    else:
        draft.set(decimal_comma=True)


def _hint_at_sessions(draft: _Draft) -> None:
    fields = draft.description.fields
    if "user_session" in fields and "user_id" not in fields:
        line = assignment("user_id", fields["user_session"])
        draft.hints.append(
            f"in [source.fields]: {line}   # makes each session a user; else all are guests without a list"
        )
