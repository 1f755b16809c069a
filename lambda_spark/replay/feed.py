"""Event files as one feed of lines in the order of their delivery, however large the files are.

Lines are kept as they are, byte for byte, also those that are no events. Every line is given the second in which it
is to be delivered and put aside on disk by date; then one date after the other is sorted and played. A date must fit
into memory, the files need not.
"""

from __future__ import annotations

import gzip
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from lambda_spark.errors import UsageError
from lambda_spark.event_format import FIELDS

Seconds = npt.NDArray[np.int64]

FORMATS = ("csv", "json", "jsonl", "ndjson", "parquet")

_BLOCK = 16 * 2**20
_DAY = 86_400
_EARLIEST = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp())
_SCHEMA = pa.schema([("second", pa.int64()), ("layout", pa.int16()), ("line", pa.large_binary())])

_DISORDER = (1, 60)
"""A line out of order comes so many seconds after its event, at least and at most;"""
_LATENESS = (3_600, 2 * _DAY)
"""a late one;"""
_REPEAT = (0, 3_600)
"""and the second delivery of a line."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How lines are to be read: `csv` with its header's names, or `json`."""

    format: str
    columns: tuple[str, ...]
    header: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbances:
    """What is wrong with the feed, as shares of its lines; the same seed disturbs the same lines."""

    repeats: float = 0.0
    disorder: float = 0.0
    lateness: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Day:
    """The lines to be delivered on one date, in order."""

    seconds: Seconds
    """When each is to be delivered, in epoch seconds."""
    layouts: npt.NDArray[np.int16]
    lines: pa.LargeBinaryArray

    def __len__(self) -> int:
        return len(self.seconds)


class Feed:
    """The lines of some files, put aside in a folder."""

    def __init__(self, folder: Path) -> None:
        # A file per date stays open while lines are put aside, and often 1,024 may be unless one asks for more.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._folder = folder
        self._writers: dict[int, Any] = {}
        self.layouts: list[Layout] = []
        self.lines = 0

    def read(self, files: Sequence[Path], disturbances: Disturbances) -> Iterator[Path]:
        """Put the lines of all files aside; yields each file before it is read. Raises UsageError for a wrong one."""
        for number, file in enumerate(files):
            yield file
            last_known = _EARLIEST
            for block, (layout, lines) in enumerate(_blocks(file)):
                seconds = event_seconds(lines, layout)
                seconds, last_known = _filled(seconds, last_known)
                rng = np.random.default_rng([disturbances.seed, number, block])
                rows, delivered = disturbed(seconds, disturbances, rng)
                self._put_aside(lines.take(pa.array(rows)), delivered, self._number(layout))
        for writer in self._writers.values():
            writer.close()

    def days(self) -> Iterator[Day]:
        """Every date's lines, oldest first, each date sorted by second; within one, lines stay as they were read."""
        for date in sorted(self._writers):
            with pa.memory_map(str(self._folder / f"{date}.arrow")) as source:
                table = pa.ipc.open_stream(source).read_all()
                seconds = table["second"].to_numpy()
                order = np.argsort(seconds, kind="stable")
                lines = pa.chunked_array(table["line"]).combine_chunks().take(pa.array(order))
                yield Day(seconds[order], table["layout"].to_numpy()[order], lines)

    def _number(self, layout: Layout) -> int:
        if layout not in self.layouts:
            self.layouts.append(layout)
        return self.layouts.index(layout)

    def _put_aside(self, lines: pa.LargeBinaryArray, seconds: Seconds, layout: int) -> None:
        dates = seconds // _DAY
        for date in np.unique(dates).tolist():
            chosen = np.flatnonzero(dates == date)
            part = lines if len(chosen) == len(lines) else lines.take(pa.array(chosen))
            batch = pa.record_batch(
                [pa.array(seconds[chosen]), pa.array(np.full(len(chosen), layout, np.int16)), part], schema=_SCHEMA
            )
            if date not in self._writers:
                self._writers[date] = pa.ipc.new_stream(str(self._folder / f"{date}.arrow"), _SCHEMA)
            self._writers[date].write_batch(batch)
        self.lines += len(lines)


def event_files(sources: Sequence[str]) -> list[Path]:
    """The event files in folders, and the files named, by name. Raises UsageError where there is none."""
    found: list[Path] = []
    for source in map(Path, sources):
        inside = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        found += [path for path in inside if not path.name.startswith(("_", "."))]
    if not found:
        raise UsageError(f"no event files in {', '.join(sources)}")
    for path in found:
        if _format(path) not in FORMATS:
            raise UsageError(f"{path}: unknown kind of file; known are .{', .'.join(FORMATS)}, each also with .gz")
    return found


def event_seconds(lines: pa.LargeBinaryArray, layout: Layout) -> Seconds:
    """When each line's event happened, in epoch seconds; -1 where that cannot be told. Time zones are taken for UTC."""
    before = layout.columns.index("event_time") if layout.format == "csv" else 0
    field = rf"^\x{{FEFF}}?(?:[^,\n]*,){{{before}}}\s*\"?" if layout.format == "csv" else r"\"event_time\"\s*:\s*\"?"
    texts = pa.LargeStringArray.from_buffers(len(lines), *lines.buffers()[1:], offset=lines.offset)
    found = pc.extract_regex(texts, rf"{field}(?P<time>[0-9][-0-9]*[T ]?[0-9:]*)")
    text = pc.replace_substring(pc.struct_field(found, "time"), "T", " ")
    moment = pc.strptime(pc.utf8_slice_codeunits(text, 0, 19), "%Y-%m-%d %H:%M:%S", "s", error_is_null=True)
    # 30 February would be a day in March.
    same_day = pc.equal(pc.cast(pc.day(moment), pa.int32()), _digits(pc.utf8_slice_codeunits(text, 8, 10)))
    moment = pc.if_else(same_day, moment, None)
    is_number = pc.fill_null(pc.match_substring_regex(text, "^[0-9]{9,10}$"), False)
    epoch = pc.if_else(is_number, text, None).cast(pa.int64())
    seconds = pc.fill_null(pc.coalesce(moment.cast(pa.int64()), epoch), -1).to_numpy(zero_copy_only=False)
    latest = datetime.now(UTC).timestamp() + _DAY
    return np.where((seconds >= _EARLIEST) & (seconds <= latest), seconds, -1).astype(np.int64)


def _digits(text: Any) -> Any:
    return pc.if_else(pc.match_substring_regex(text, "^[0-9]+$"), text, None).cast(pa.int32())


def disturbed(seconds: Seconds, how: Disturbances, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Seconds]:
    """Which lines are delivered, some of them twice, and when."""
    count = len(seconds)
    delivered = seconds.copy()
    for share, span in ((how.disorder, _DISORDER), (how.lateness, _LATENESS)):
        delivered += np.where(rng.random(count) < share, rng.integers(*span, count, endpoint=True), 0)
    again = np.flatnonzero(rng.random(count) < how.repeats)
    second = delivered[again] + rng.integers(*_REPEAT, len(again), endpoint=True)
    return np.concatenate([np.arange(count), again]), np.concatenate([delivered, second])


def _filled(seconds: Seconds, last_known: int) -> tuple[Seconds, int]:
    """Lines without a time are taken to come with the line before them."""
    known = seconds >= 0
    if not known.any():
        return np.full(len(seconds), last_known), last_known
    if last_known == _EARLIEST:
        last_known = int(seconds[known][0])
    nearest = np.maximum.accumulate(np.where(known, np.arange(len(seconds)), -1))
    filled = np.where(nearest >= 0, seconds[nearest], last_known)
    return filled, int(filled[-1])


def _format(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]


def _blocks(path: Path) -> Iterator[tuple[Layout, pa.LargeBinaryArray]]:
    """The lines of a file with their line ends, some megabytes at a time; a CSV file's header is left out."""
    try:
        if _format(path) == "parquet":
            yield from _parquet_blocks(path)
            return
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            layout = Layout("json", FIELDS)
            if _format(path) == "csv":
                header = file.readline()
                names = tuple(name.strip().strip('"').lower() for name in header.decode("utf-8-sig").split(","))
                if "event_time" not in names:
                    raise UsageError(f"{path}: the first line names no column event_time")
                layout = Layout("csv", names, header if header.endswith(b"\n") else header + b"\n")
            for data in _whole_lines(cast(BinaryIO, file)):
                yield layout, _lines(data)
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while block := file.read(_BLOCK):
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
        else:
            rest += block
    if rest:
        yield rest + b"\n"


def _lines(data: bytes) -> pa.LargeBinaryArray:
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(ends), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)]
    )


def _parquet_blocks(path: Path) -> Iterator[tuple[Layout, pa.LargeBinaryArray]]:
    """Rows as the CSV lines they would have been."""
    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name.lower() in FIELDS]
    if "event_time" not in map(str.lower, names):
        raise UsageError(f"{path}: there is no column event_time")
    layout = Layout("csv", tuple(map(str.lower, names)), (",".join(names).lower() + "\n").encode())
    for batch in file.iter_batches(batch_size=100_000, columns=names):
        texts = [column.cast(pa.string()) for column in pa.Table.from_batches([batch]).itercolumns()]
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(
            pa.table(texts, names=names), sink, pa.csv.WriteOptions(include_header=False, quoting_style="needed")
        )
        yield layout, _lines(sink.getvalue().to_pybytes())
