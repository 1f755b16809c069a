"""Generator of a made-up store's event log in the REES46 format, for examples, tests and benchmarks.

This command makes the store in `data/` again, byte for byte:

    ./spark-submit.sh generate --events 28000 --seed 7 --out data/store --format csv.gz --force

This command makes a larger store for a benchmark:

    ./spark-submit.sh generate --events 5e6 --seed 1 --out big/store --format parquet

The events go to files in the folder of `--out`. Each file holds a week of events, or a day if the store has more than a
quarter of a million events a week. The planted trends, the planted pairs and the counts of lines go to
`planted_truth.json` beside the folder, or to the file of `--planted-truth`. Only CSV files have broken lines.
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
"""Largest average number of events a week for which each file holds a week. Above it, each file holds a day."""
FILE_SCHEMA = pa.schema([(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in SCHEMA])
"""Columns of a Parquet file. They are those of SCHEMA, but with plain strings instead of dictionary-encoded ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSummary:
    """Counts of the files and lines that the generator has written for a store."""

    files: int
    lines: int
    """Number of lines in all files: events, repeats and broken lines, without header lines."""
    events: int
    """Number of distinct valid events."""
    repeats: int
    """Number of lines that are exact copies of an event, in the same file or a later file."""
    broken: int
    """Number of broken lines, which cannot be read as events. No two of them are the same."""
    late: int
    """Number of events and repeats that arrive in a later file than the file of their own date."""


class StoreExistsError(Exception):
    """Error for a store's output folder that is not empty, or an output file that already exists."""


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
    "bad_user": _with(7, b"me"),
    "no_visitor": lambda fields: b",".join([*fields[:7], b"", b""]),
    "no_utf8": _with(5, b"caf\xe9"),
}
"""Ways to break a line, by name. Each way is a function that makes a broken line from the fields of a valid line."""


# --- Lines ------------------------------------------------------------------------------------------------------------


def csv_lines(rows: pa.RecordBatch) -> pa.Array:
    """Format event rows as lines of CSV.

    Args:
        rows: Rows with the columns of SCHEMA.

    Returns:
        The lines, each with its line end. Times look like `2019-10-01 00:00:00 UTC`, prices have two decimals, and no
            field has quotation marks.
    """
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
    """Turn a dictionary-encoded column into text, with an empty text in place of null."""
    return pc.fill_null(column.cast(pa.string()), "")


def _time_text(second: Ints) -> pa.Array:
    """Format times as in REES46, like `2019-10-01 00:00:00 UTC`.

    For speed, each distinct date and each of the 86,400 times of day is formatted only once. Each row then looks up its
    date and its time of day.
    """
    day, of_day = np.divmod(second, 86_400)
    days, which = np.unique(day, return_inverse=True)
    dates = _rows([f"{date(1970, 1, 1) + timedelta(days=number)} " for number in days.tolist()])
    whole = np.concatenate([dates[which], _clock()[of_day]], axis=1)
    offsets = np.arange(len(second) + 1, dtype=np.int32) * whole.shape[1]
    return pa.StringArray.from_buffers(len(second), pa.py_buffer(offsets), pa.py_buffer(whole.tobytes()))


@cache
def _clock() -> Bytes:
    """Return the 86,400 times of day as texts, like `13:05:00 UTC`. The array has a row of bytes for each text."""
    two = [f"{number:02}" for number in range(60)]
    return _rows([f"{hour}:{minute}:{second} UTC" for hour in two[:24] for minute in two for second in two])


def _rows(texts: list[str]) -> Bytes:
    """Turn texts of equal length into an array that has a row of bytes for each text."""
    return np.frombuffer("".join(texts).encode(), np.uint8).reshape(len(texts), -1)


def _price_text(cents: Ints) -> pa.Array:
    distinct, which = np.unique(cents, return_inverse=True)
    return pa.array([f"{value // 100}.{value % 100:02}" for value in distinct.tolist()]).take(pa.array(which))


def _csv_parts(table: pa.Table, broken: range, rng: np.random.Generator) -> Iterator[bytes | memoryview]:
    """Yield the CSV lines of a table of events as bytes, and mix in broken lines at random places.

    Each number in `broken` adds one broken line. The number decides in which way the line is broken.
    """
    (rows,) = table.to_batches()
    lines = csv_lines(rows)
    _, offsets, data = lines.buffers()
    ends, body = np.frombuffer(offsets, np.int32)[1 : len(lines) + 1], memoryview(data)[: data.size]
    ways, written = list(BROKEN.values()), 0
    # Make each broken line from a different valid line, because no two broken lines may be the same.
    places = np.sort(rng.permutation(len(lines))[: len(broken)]).tolist()
    for number, row in zip(broken, places, strict=True):
        way = ways[number % len(ways)]
        yield body[written : ends[row]]
        yield way(lines[row].as_py().rstrip("\n").encode().split(b",")) + b"\n"
        written = int(ends[row])
    yield body[written : int(ends[-1])]


# --- Files ------------------------------------------------------------------------------------------------------------


def file_name(day: date, settings: StoreSettings, form: Format) -> str:
    """Return the name of the file that holds a day's events.

    Args:
        day: The day.
        settings: Settings of the store.
        form: Format of the files.

    Returns:
        The file's name. In a store with at most EVENTS_BY_WEEK events a week, the file holds the whole ISO week of the
            day. In a larger store, the file holds this day alone.
    """
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
    """Write a store's event files into a folder, and its planted trends and pairs into a file beside the folder.

    While a file is being written, its name begins with an underscore. The complete file gets its final name.

    Args:
        settings: Settings of the store.
        folder: Folder for the event files.
        form: Format of the event files.
        plants_file: File for the planted trends and pairs. By default, `planted_truth.json` beside the folder.
        force: Whether to write even if the folder is not empty or `plants_file` exists. New files replace old files of
            the same name. All other files stay.
        progress: Function that receives a line of progress after each chunk (a day or part of a day).

    Returns:
        The counts of files and lines.

    Raises:
        ValueError: The format is unknown.
        StoreExistsError: `force` is false, and the folder is not empty or `plants_file` exists.
    """
    if form not in get_args(Format):
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, not {form!r}")
    plants_file = plants_file or folder.parent / "planted_truth.json"
    if folder.exists() and any(folder.iterdir()) and not force:
        raise StoreExistsError(
            f"{folder} is not empty: name another folder with --out, or add --force to replace files of the same names"
        )
    if plants_file.exists() and not force:
        raise StoreExistsError(
            f"{plants_file} exists: name another file with --planted-truth, or add --force to replace it"
        )
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
"""Function that writes a table of events, and mixes in a broken line for each number of a range.

Its third argument is the source of random numbers.
"""


@contextmanager
def _writer(path: Path, form: Format) -> Iterator[Write]:
    """Open an event file, and yield a function that appends a table of events to the file at each call."""
    with ExitStack() as stack:
        if form == "parquet":
            parquet = stack.enter_context(pq.ParquetWriter(path, FILE_SCHEMA, compression="snappy"))
            yield lambda table, broken, rng: parquet.write_table(table.cast(FILE_SCHEMA))
            return
        sink: BinaryIO = stack.enter_context(path.open("wb"))
        if form == "csv.gz":
            # Leave the file name and the time out of the gzip header, so that the same lines give the same bytes.
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=sink, mtime=0)
            sink = cast(BinaryIO, stack.enter_context(packed))
        sink.write(",".join(SCHEMA.names).encode() + b"\n")
        yield lambda table, broken, rng: sink.writelines(_csv_parts(table, broken, rng))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename the file to `path` when the file is complete."""
    unfinished = path.with_name("_" + path.name)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables, while a second thread already makes the next table.

    Making a table takes about as long as writing a table. So the two threads keep two cores busy.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, tables, None)
        while (table := upcoming.result()) is not None:
            upcoming = pool.submit(next, tables, None)
            yield table


# --- The planted truth ------------------------------------------------------------------------------------------------


def planted_truth(settings: StoreSettings) -> dict[str, Any]:
    """Describe the planted trends and planted pairs with the product ids, category codes and brands of the events.

    Args:
        settings: Settings of the store.

    Returns:
        A dictionary with a list each of product trends, category trends, brand trends and pairs. Each trend has the
            Monday on which the trend begins, and each pair has its relation. The `strength` of a trend is the factor by
            which demand changes. The factor is above 1 for rising, below 1 for waning, and 0 for vanished products. It
            is None for new products, which had no demand before.
    """
    goods = catalogue(settings)
    planted = plants(settings, goods)
    columns = {"product": "product_id", "category": "category_code", "brand": "brand"}

    def trends(of: str) -> list[dict[str, Any]]:
        return [
            {
                columns[of]: trend.key,
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
    """Write a made-up store as the command line says, and print the store's counts in one line.

    Args:
        argv: Arguments of the command. By default, those of the process.

    Returns:
        The exit code, which is 0 when the store is written, and 2 when the arguments are wrong.
    """
    default = StoreSettings()
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="./spark-submit.sh generate", description=about)
    option = parser.add_argument
    option("--events", type=_whole, default=default.events, help="distinct valid events, like 28000 or 5e6")
    option("--seed", type=int, default=default.seed, help="another seed gives another store")
    option("--days", type=int, default=default.days, help=f"days of history from {default.start}")
    option("--format", choices=get_args(Format), default="csv.gz", help="format of the files")
    option("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    option(
        "--planted-truth",
        type=Path,
        metavar="FILE",
        help="file for the planted trends and pairs (default: planted_truth.json beside DIR)",
    )
    option("--plants", nargs="?", const="", help=argparse.SUPPRESS)
    option("--force", action="store_true", help="replace files of the same names; other files stay")
    arguments = parser.parse_args(argv)
    if arguments.plants is not None:
        print("error: --plants is now called --planted-truth: write that name", file=sys.stderr)
        return 2

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
            plants_file=arguments.planted_truth,
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
    """Read a whole number from the command line. Forms like 5e6 are accepted too."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(number)


if __name__ == "__main__":
    raise SystemExit(main())
