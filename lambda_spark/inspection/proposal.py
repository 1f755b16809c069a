"""Proposes a source description for a log, by a sample of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lambda_spark.event_format import EVENT_TYPES
from lambda_spark.inspection.description import SOURCES, Description, Doubt, toml_of
from lambda_spark.inspection.fields import Choice, Column, choose_fields, columns_in, event_names
from lambda_spark.inspection.judge import Verdict, bare_name, integer_fault, judge, mapped_rows
from lambda_spark.inspection.names import field_of
from lambda_spark.inspection.ready import DEFAULT, Ready, matching
from lambda_spark.inspection.sample import Row, Sample, read_sample
from lambda_spark.inspection.times import Times, times_of
from lambda_spark.inspection.warnings import warnings_of

_TELLING = (".csv", ".json", ".jsonl", ".ndjson", ".parquet")
"""Ends of file names that tell the format."""
_NOBODY = (
    "0",
    "-1",
    "guest",
    "guests",
    "anonymous",
    "anonym",
    "unknown",
    "gast",
    "nobody",
    "none",
    "n/a",
    "not logged in",
)
"""User ids by which logs mean a guest, in lower case."""
_SEVERAL_TIMES = 3
"""How much more often than any other user `0` must stand for it to mean a guest."""
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
    description: Description
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
        return self.is_sure and not kept and names and is_told and plain == Description()

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
    explode, doubts = _array(sample)
    description = _written(sample, explode)
    doubts += _header_doubts(sample)
    columns = columns_in(sample, explode)
    choices, open_fields = choose_fields(columns, explode)
    doubts += open_fields + _missing_in_some(sample, choices)
    description = replace(description, fields={name: choice.source for name, choice in choices.items()})
    description, hints, more = _with_times(description, columns)
    doubts += more
    mapped = mapped_rows(sample, description, description.fields)
    events, description, more = _with_events(description, mapped)
    doubts += more
    description, more = _with_ids(description, mapped)
    doubts += more
    description, more = _with_prices(description, mapped)
    doubts += more
    hints += _session_hints(description)
    return Inspection(
        names=tuple(map(str, names)),
        sample=sample,
        columns=columns,
        choices=choices,
        events=events,
        description=description,
        doubts=tuple(doubts),
        hints=tuple(hints),
        verdict=judge(sample, description),
        warnings=tuple(warnings_of(sample, description, mapped, {doubt.key for doubt in doubts})),
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
        events=Counter(row["event_type"] for row in mapped if row["event_type"]),
        description=description,
        doubts=(),
        hints=(),
        verdict=ready.verdict,
        warnings=tuple(warnings_of(sample, description, mapped)),
        ready=ready,
    )


# --- How the files are written ----------------------------------------------------------------------------------------


def _written(sample: Sample, explode: str) -> Description:
    dialect = sample.dialect
    is_headless = dialect.format == "csv" and dialect.header is False
    return Description(
        format=dialect.format,
        delimiter=dialect.delimiter,
        quote=dialect.quote,
        escape=dialect.escape,
        header=not is_headless,
        columns=sample.columns if is_headless else (),
        multiline=dialect.multiline,
        encoding=dialect.encoding,
        explode=explode,
    )


def _missing_in_some(sample: Sample, choices: Mapping[str, Choice]) -> list[Doubt]:
    missing = [choice.source for choice in choices.values() if bare_name(choice.source) in sample.not_in_all]
    why = f"some files lack {', '.join(missing)}: files of different columns need a description each"
    return [Doubt(key="columns", why=why)] if missing else []


def _header_doubts(sample: Sample) -> list[Doubt]:
    if sample.lines_above:
        why = f"the table begins below {sample.lines_above} other lines, which are taken for its header: remove them"
        return [Doubt(key="header", why=why)]
    if sample.dialect.header is not None:
        return []
    first = ", ".join(value or "" for value in sample.records[0].values())
    return [
        Doubt(
            key="header",
            why=f"every column is a text, so that the first line may be names or a record: {first}",
            candidates=("header = true", f"header = false   # and columns = {list(sample.columns)}"),
        )
    ]


def _array(sample: Sample) -> tuple[str, list[Doubt]]:
    """Find the array whose elements are an event each."""
    found = [path for path in sample.arrays if _has_products(sample.rows(path), path)]
    whole = [name for name in sample.columns if (field_of(name) or ("", 9))[0] == "product_id"]
    if len(found) == 1 and not whole:
        return found[0], []
    if not found:
        return "", []
    candidates = [f'explode = "{path}"' for path in found]
    if whole:
        candidates.append('explode = ""')
    why = f"{' and '.join(found + whole[:1])} each hold products"
    return ("" if whole else found[0]), [Doubt(key="explode", why=why, candidates=tuple(candidates))]


def _has_products(rows: Sequence[Row], path: str) -> bool:
    return any(
        name.startswith(f"{path}.") and (field_of(name) or ("",))[0] == "product_id" for row in rows for name in row
    )


# --- Times ------------------------------------------------------------------------------------------------------------


def _with_times(description: Description, columns: Mapping[str, Column]) -> tuple[Description, list[str], list[Doubt]]:
    column = columns.get(bare_name(description.fields.get("event_time", "")))
    times = column.times if column else None
    if column is None or times is None:
        return description, [], []
    hints = []
    if not times.zoned and not times.unit:
        hints.append(
            f'time_zone = "Europe/Berlin"   # {column.name} names no zone and is taken as UTC: the shop\'s zone?'
        )
    if times.doubt:
        return description, hints, [Doubt(key=_key(times), why=times.doubt, candidates=times.candidates)]
    if times.unit:
        return replace(description, time_unit=times.unit), hints, []
    return replace(description, time_format=times.format), hints, _clock_doubts(column, times, columns)


def _key(times: Times) -> str:
    """Return the key of a description that settles a doubt about times."""
    return times.candidates[0].split(" = ")[0]


def _clock_doubts(column: Column, times: Times, columns: Mapping[str, Column]) -> list[Doubt]:
    """Ask whether another column has the time of day."""
    pattern = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
    clocks = [one for one in columns.values() if one.values and one.share(pattern.fullmatch) > 0.9]
    if not times.days_only or not clocks:
        return []
    seconds = ":ss" if clocks[0].values[0].count(":") == 2 else ""
    return [
        Doubt(
            section="fields",
            key="event_time",
            why=f"{column.name} has days, and {clocks[0].name} may have their times",
            candidates=(
                f"event_time = \"concat({column.source}, ' ', {clocks[0].source})\"   "
                f'# and time_format = "{times.format or "yyyy-MM-dd"} HH:mm{seconds}" above',
            ),
        )
    ]


# --- Event names, ids, prices -----------------------------------------------------------------------------------------


def _with_events(description: Description, mapped: Sequence[Row]) -> tuple[Mapping[str, int], Description, list[Doubt]]:
    counts = Counter(row["event_type"] for row in mapped if row["event_type"])
    source = description.fields.get("event_type", "")
    if not source or "'" in source:
        return counts, description, []
    meanings, doubts = event_names(counts)
    if all(word == meaning and word in EVENT_TYPES for word, meaning in meanings.items()) and not doubts:
        return counts, description, []
    return counts, replace(description, event_types=meanings), doubts


def _with_ids(description: Description, mapped: Sequence[Row]) -> tuple[Description, list[Doubt]]:
    """Decide which user ids mean nobody, and whether ids are whole numbers or texts."""
    users = Counter(row["user_id"] for row in mapped if row["user_id"] is not None)
    nobody, doubts = _nobody(users)
    values = [value for value in users.elements() if value not in nobody]
    products = [row["product_id"] for row in mapped if row["product_id"] is not None]
    if not (_are_texts(values) or _are_texts(products)):
        return replace(description, nobody=nobody), doubts
    # As texts, 17850.0 and 17850 would be two ids. As whole numbers they are one anyway.
    fields = dict(description.fields)
    for name, ids in (("user_id", values), ("product_id", products)):
        if sum(bool(re.fullmatch(r"\d+\.0", value)) for value in ids) > 0.5 * len(ids) > 0:
            fields[name] = f"regexp_replace({fields[name]}, '[.]0$', '')"
    return replace(description, nobody=nobody, ids="text", fields=fields), doubts


def _are_texts(values: Sequence[str]) -> bool:
    wrong = sum(bool(integer_fault(value)) for value in values)
    return wrong > _RARE * len(values) or any(re.fullmatch(r"\+\d+|0\d*", value) for value in values)


def _nobody(users: Counter[str]) -> tuple[tuple[str, ...], list[Doubt]]:
    markers = [user for user in users if user.lower() in _NOBODY]
    others = max((number for user, number in users.items() if user not in markers), default=0)
    sure, doubts = [], []
    for user in sorted(markers):
        # No person has the id -1 or a word like guest. The id 0 may be a person's, where ids begin at 0.
        if user != "0" or users[user] >= _SEVERAL_TIMES * others:
            sure.append(user)
        elif users[user] > others:
            why = f'the user "0" has more records ({users[user]:,}) than any other: a guest or a person'
            doubts.append(Doubt(key="nobody", why=why, candidates=('nobody = ["0"]', "nobody = []")))
    return tuple(sure), doubts


def _with_prices(description: Description, mapped: Sequence[Row]) -> tuple[Description, list[Doubt]]:
    prices = [row["price"] for row in mapped if row["price"]]
    commas = [price for price in prices if re.fullmatch(r"-?[\d.]*\d,\d+", price)]
    if len(commas) <= 0.5 * len(prices) or not commas:
        return description, []
    if all(re.search(r",\d{3}$", price) for price in commas):
        why = f'"{commas[0]}" may be a thousand and more, or a number with three decimals'
        options = ("decimal_comma = true", "decimal_comma = false")
        return description, [Doubt(key="decimal_comma", why=why, candidates=options)]
    return replace(description, decimal_comma=True), []


def _session_hints(description: Description) -> list[str]:
    session = description.fields.get("user_session")
    if not session or "user_id" in description.fields:
        return []
    return [
        f'in [source.fields]: user_id = "{session}"   # makes each session a user; else all are guests without a list'
    ]
