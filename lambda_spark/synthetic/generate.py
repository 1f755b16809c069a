"""Make an online store's event log in the REES46 format, with a planted truth: for examples, tests and benchmarks.

The store in `data/` is made again, byte for byte, by

    ./spark-submit.sh generate --events 28000 --seed 7 --out data/store --format csv.gz --force

and a store for a benchmark by, say,

    ./spark-submit.sh generate --events 5e6 --seed 1 --out big/store --format parquet

The store's events go to files. The planted trends and the counts of lines go to `planted_truth.json` beside the folder
(`--plants` names another place). A file holds a week, or a day where a week has more than a quarter of a million
events. Only CSV has broken lines.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lambda_spark.synthetic.catalogue import catalogue
from lambda_spark.synthetic.delivery import SCHEMA, generate
from lambda_spark.synthetic.model import Ints, StoreSettings, Stream, chunks, shares
from lambda_spark.synthetic.planted_trends import plants

__all__ = ["SCHEMA", "StoreSettings", "StoreSummary", "generate", "main", "planted_truth", "write_store"]

Format = Literal["csv", "csv.gz", "parquet"]
Bytes = npt.NDArray[np.uint8]

EVENTS_BY_WEEK = 250_000
"""A store with more events a week than this has a file a day."""
FILE_SCHEMA = pa.schema([(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in SCHEMA])
"""SCHEMA without dictionaries: what a Parquet file holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSummary:
    """What was written."""

    files: int
    lines: int
    """All lines but the headers: events, repeats and broken lines."""
    events: int
    """Distinct valid events."""
    repeats: int
    """Exact copies of an event, in the same file or a later one."""
    broken: int
    """Lines that cannot be read, no two alike."""
    late: int
    """Lines in a later file than their date's, repeats among them."""


class StoreExistsError(Exception):
    """There are files where the store should go."""


# --- Broken lines -----------------------------------------------------------------------------------------------------


def _with(field: int, text: bytes) -> Callable[[list[bytes]], bytes]:
    return lambda fields: b",".join([*fields[:field], text, *fields[field + 1 :]])


BROKEN: dict[str, Callable[[list[bytes]], bytes]] = {
    "cut_line": lambda fields: b",".join(fields[:8])[:-3],
    "too_many_fields": lambda fields: b",".join([*fields, b"web", b"1"]),
    "no_time": _with(0, b""),
    "invalid_date": _with(0, b"2019-02-30 11:14:00 UTC"),
    "far_future": _with(0, b"9999-12-31 23:59:59 UTC"),
    "unknown_type": _with(1, b"wishlist"),
    "bad_product": _with(2, b"10O4856"),
    "negative_product": _with(2, b"-1"),
    "bad_price": _with(6, b"free"),
    "no_user": _with(7, b""),
    "no_utf8": _with(5, b"caf\xe9"),
}
"""Ways for a line to be unusable, each made from the fields of a good one."""


# --- Lines ------------------------------------------------------------------------------------------------------------


def csv_lines(rows: pa.RecordBatch) -> pa.Array:
    """Rows as lines of CSV with their line ends: `2019-10-01 00:00:00 UTC`, two decimals, nothing quoted."""
    second = rows["event_time"].cast(pa.int64()).to_numpy() // 1_000_000
    cents = np.rint(rows["price"].to_numpy() * 100).astype(np.int64)
    columns = [
        _time_text(second),
        _words(rows["event_type"]),
        rows["product_id"].cast(pa.string()),
        rows["category_id"].cast(pa.string()),
        _words(rows["category_code"]),
        _words(rows["brand"]),
        _price_text(cents),
        rows["user_id"].cast(pa.string()),
        pc.binary_join_element_wise(_words(rows["user_session"]), "\n", ""),
    ]
    return pc.binary_join_element_wise(*columns, ",")


def _words(column: pa.DictionaryArray) -> pa.Array:
    """A dictionary column as text, empty where null."""
    return pc.fill_null(column.cast(pa.string()), "")


def _time_text(second: Ints) -> pa.Array:
    """Times as REES46 writes them. Dates are few and times of day 86,400, so both are looked up, not formatted."""
    day, of_day = np.divmod(second, 86_400)
    days, which = np.unique(day, return_inverse=True)
    dates = _rows([f"{date(1970, 1, 1) + timedelta(days=number)} " for number in days.tolist()])
    whole = np.concatenate([dates[which], _clock()[of_day]], axis=1)
    offsets = np.arange(len(second) + 1, dtype=np.int32) * whole.shape[1]
    return pa.StringArray.from_buffers(len(second), pa.py_buffer(offsets), pa.py_buffer(whole.tobytes()))


@cache
def _clock() -> Bytes:
    """The 86,400 times of day, a row each."""
    two = [f"{number:02}" for number in range(60)]
    return _rows([f"{hour}:{minute}:{second} UTC" for hour in two[:24] for minute in two for second in two])


def _rows(texts: list[str]) -> Bytes:
    """Texts of one length as rows of bytes."""
    return np.frombuffer("".join(texts).encode(), np.uint8).reshape(len(texts), -1)


def _price_text(cents: Ints) -> pa.Array:
    distinct, which = np.unique(cents, return_inverse=True)
    return pa.array([f"{value // 100}.{value % 100:02}" for value in distinct.tolist()]).take(pa.array(which))


def _csv_parts(table: pa.Table, broken: range, rng: np.random.Generator) -> Iterator[bytes | memoryview]:
    """A chunk's lines as bytes to write one after the other, with broken lines (by number) at random places between."""
    (rows,) = table.to_batches()
    lines = csv_lines(rows)
    _, offsets, data = lines.buffers()
    ends, body = np.frombuffer(offsets, np.int32)[1 : len(lines) + 1], memoryview(data)[: data.size]
    ways, written = list(BROKEN.values()), 0
    # Each from a line of its own: two broken lines that are alike would count as one and a repeat.
    places = np.sort(rng.permutation(len(lines))[: len(broken)]).tolist()
    for number, row in zip(broken, places, strict=True):
        way = ways[number % len(ways)]
        yield body[written : ends[row]]
        yield way(lines[row].as_py().rstrip("\n").encode().split(b",")) + b"\n"
        written = int(ends[row])
    yield body[written : int(ends[-1])]


# --- Files ------------------------------------------------------------------------------------------------------------


def file_name(day: date, settings: StoreSettings, form: Format) -> str:
    """The file of a day's events: one of a day, or of an ISO week (which is a 7-day bucket) in a small store."""
    by_week = settings.events * 7 <= EVENTS_BY_WEEK * settings.days
    return f"events-{day:%G-W%V}.{form}" if by_week else f"events-{day}.{form}"


def write_store(
    settings: StoreSettings,
    folder: Path,
    form: Format = "csv.gz",
    *,
    plants_file: Path | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> StoreSummary:
    """Write a store's files into a folder and its planted truth beside it.

    A folder with anything in it, and a file of plants that exists, are refused unless forced; then only the files that
    are to be made are replaced. A file has its name once it is whole; until then its name begins with an underscore.
    """
    if form not in get_args(Format):
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, not {form!r}")
    plants_file = plants_file or folder.parent / "planted_truth.json"
    if folder.exists() and any(folder.iterdir()) and not force:
        raise StoreExistsError(
            f"{folder} is not empty: name another folder, or --force to replace the same names in it"
        )
    if plants_file.exists() and not force:
        raise StoreExistsError(f"{plants_file} exists: name another file with --plants, or --force to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    plants_file.parent.mkdir(parents=True, exist_ok=True)

    plan = chunks(settings)
    broken = 0 if form == "parquet" else round(settings.broken_share * settings.events)
    broken_ends = np.cumsum(shares(broken, np.array([chunk.events for chunk in plan], float))).tolist()
    files = lines = late = 0
    delivered = zip(plan, _ahead(generate(settings)), strict=True)
    for name, parts in groupby(delivered, lambda part: file_name(settings.day(part[0].day), settings, form)):
        with _replacing(folder / name) as unfinished, _writer(unfinished, form) as write:
            begin: pa.Scalar | None = None
            for chunk, table in parts:
                begin = begin or pa.scalar(datetime.combine(settings.day(chunk.day), datetime.min.time(), UTC))
                numbers = range(broken_ends[chunk.index - 1] if chunk.index else 0, broken_ends[chunk.index])
                write(table, numbers, settings.random(Stream.BROKEN, chunk.index))
                late += pc.sum(pc.less(table["event_time"], begin), min_count=0).as_py()
                lines += len(table) + len(numbers)
                progress(f"{settings.day(chunk.day)}: {lines:,} lines")
        files += 1
    events = settings.events
    repeats = lines - events - broken
    summary = StoreSummary(files=files, lines=lines, events=events, repeats=repeats, broken=broken, late=late)
    with _replacing(plants_file) as unfinished:
        truth = planted_truth(settings) | {"counts": asdict(summary)}
        unfinished.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return summary


Write = Callable[[pa.Table, range, np.random.Generator], None]


@contextmanager
def _writer(path: Path, form: Format) -> Iterator[Write]:
    """Something that writes chunks to a file one after the other."""
    with ExitStack() as stack:
        if form == "parquet":
            parquet = stack.enter_context(pq.ParquetWriter(path, FILE_SCHEMA, compression="snappy"))
            yield lambda table, broken, rng: parquet.write_table(table.cast(FILE_SCHEMA))
            return
        sink: BinaryIO = stack.enter_context(path.open("wb"))
        if form == "csv.gz":
            # Neither a name nor a time in the header, so that the same lines are the same bytes.
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=sink, mtime=0)
            sink = cast(BinaryIO, stack.enter_context(packed))
        sink.write(",".join(SCHEMA.names).encode() + b"\n")
        yield lambda table, broken, rng: sink.writelines(_csv_parts(table, broken, rng))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write under; the file gets its own name when it is whole."""
    unfinished = path.with_name("_" + path.name)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same, each made while the one before is being written: the two take about as long, on two cores."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = pool.submit(next, tables, None)
            yield table


# --- The planted truth ------------------------------------------------------------------------------------------------


def planted_truth(settings: StoreSettings) -> dict[str, Any]:
    """What was planted, in the words of the events: trends, each from a Monday on, and pairs by relation.

    `strength` is the factor on demand: above 1 for what rises, below for what wanes, 0 for what vanishes, and null for
    what is new and had no demand before.
    """
    goods = catalogue(settings)
    planted = plants(settings, goods)
    named = {"product": "product_id", "category": "category_code", "brand": "brand"}

    def trends(of: str) -> list[dict[str, Any]]:
        return [
            {
                named[of]: trend.key,
                "bucket_start": str(settings.day(7 * trend.week)),
                "what": trend.what,
                "direction": "rising" if trend.strength is None or trend.strength > 1 else "waning",
                "strength": trend.strength,
            }
            for trend in planted.trends
            if trend.of == of
        ]

    return {
        "made_by": "./spark-submit.sh generate",
        "settings": asdict(settings) | {"start": str(settings.start)},
        "last_complete_bucket": str(settings.day(7 * settings.last_complete_week)),
        "products": trends("product"),
        "categories": trends("category"),
        "brands": trends("brand"),
        "pairs": [
            {"product_a": a, "product_b": b, "relation": relation}
            for relation in ("viewed", "bought")
            for pair in planted.pairs
            for a, b in [goods.product_id[[pair.a, pair.b]].tolist()]
            if pair.bought or relation == "viewed"
        ],
    }


# --- The command ------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Make a store as told on the command line, and say in one line what was made."""
    default = StoreSettings()
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="./spark-submit.sh generate", description=about)
    option = parser.add_argument
    option("--events", type=_whole, default=default.events, help="distinct valid events: 28000 or 5e6, say")
    option("--seed", type=int, default=default.seed, help="another seed, another store")
    option("--days", type=int, default=default.days, help=f"days of history from {default.start}")
    option("--format", choices=get_args(Format), default="csv.gz", help="how the files are written")
    option("--out", type=Path, required=True, metavar="DIR", help="the folder for the files")
    option(
        "--plants",
        type=Path,
        metavar="FILE",
        help="where to write what is planted (default: planted_truth.json beside DIR)",
    )
    option("--force", action="store_true", help="replace files of the same names; others stay where they are")
    arguments = parser.parse_args(argv)

    began = shown = time.monotonic()

    def progress(line: str) -> None:
        nonlocal shown
        if time.monotonic() - shown > 2:
            shown = time.monotonic()
            print(line, file=sys.stderr)

    try:
        summary = write_store(
            StoreSettings(events=arguments.events, seed=arguments.seed, days=arguments.days),
            arguments.out,
            arguments.format,
            plants_file=arguments.plants,
            force=arguments.force,
            progress=progress,
        )
    except (ValueError, StoreExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seconds = time.monotonic() - began
    print(
        f"{summary.events:,} events, {summary.repeats:,} repeats and {summary.broken:,} broken lines "
        f"in {summary.files} files at {arguments.out}: {seconds:.1f} s, {summary.events / seconds:,.0f} events a second"
    )
    return 0


def _whole(text: str) -> int:
    """A whole number, also as 5e6."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(number)


if __name__ == "__main__":
    raise SystemExit(main())
