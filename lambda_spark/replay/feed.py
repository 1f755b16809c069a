"""Reads event files of any size and makes one feed from them: all lines, in the order of their event times.

Lines stay as they are, byte for byte, even if they are no events. The reader gives each line a second for its delivery,
and first writes the line to a temporary file for its date. Then the feed sorts and yields the lines of one date after
another. The lines of one date have to fit into memory. The lines of all files together need not.
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
"""Number of bytes that the reader takes from an event file at a time."""
_DAY = 86_400
_EARLIEST = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp())
"""Earliest epoch second that counts as an event time. Earlier times are taken for errors."""
_SCHEMA = pa.schema([("second", pa.int64()), ("layout", pa.int16()), ("line", pa.large_binary())])


@dataclass(frozen=True, slots=True)
class Layout:
    """Format of the lines in an event file: either `csv` with the column names of its header line, or `json`."""

    format: str
    columns: tuple[str, ...]
    header: bytes = b""


@dataclass(frozen=True, slots=True)
class Day:
    """All lines of one date, in the order of their delivery."""

    seconds: Seconds
    """Time at which each line is to be delivered, in epoch seconds."""
    layouts: npt.NDArray[np.int16]
    """Index of each line's layout in the feed's list of layouts."""
    lines: pa.LargeBinaryArray
    """The bytes of each line, with the line end."""

    def __len__(self) -> int:
        return len(self.seconds)


class Feed:
    """All lines of some event files. The feed stores them in a folder, in one temporary file for each date."""

    def __init__(self, folder: Path) -> None:
        # Raise this process's limit of open files, because the feed keeps one file open for each date. The limit is
        # often 1,024.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._folder = folder
        self._writers: dict[int, Any] = {}
        self.layouts: list[Layout] = []
        self.lines = 0

    def read(self, files: Sequence[Path]) -> Iterator[Path]:
        """Read all event files and store their lines by date.

        Args:
            files: Event files.

        Yields:
            The path of each file, before the file is read.

        Raises:
            UsageError: A file cannot be read, or has no column `event_time`.
        """
        for file in files:
            yield file
            last_known = _EARLIEST
            for layout, lines in _blocks(file):
                seconds, last_known = _filled(event_seconds(lines, layout), last_known)
                self.put_aside(lines, seconds, layout)
        for writer in self._writers.values():
            writer.close()

    def put_aside(self, lines: pa.LargeBinaryArray, seconds: Seconds, layout: Layout) -> None:
        """Store each line in the temporary file for the line's date.

        Args:
            lines: Lines with their line ends.
            seconds: Time at which each line is to be delivered, in epoch seconds.
            layout: The layout of all these lines.
        """
        number = self._number(layout)
        dates = seconds // _DAY
        for date in np.unique(dates).tolist():
            chosen = np.flatnonzero(dates == date)
            part = lines if len(chosen) == len(lines) else lines.take(pa.array(chosen))
            batch = pa.record_batch(
                [pa.array(seconds[chosen]), pa.array(np.full(len(chosen), number, np.int16)), part], schema=_SCHEMA
            )
            if date not in self._writers:
                self._writers[date] = pa.ipc.new_stream(str(self._folder / f"{date}.arrow"), _SCHEMA)
            self._writers[date].write_batch(batch)
        self.lines += len(lines)

    def days(self) -> Iterator[Day]:
        """Sort the lines of each date by time, and yield one date after another, oldest date first.

        Lines of the same second keep the order in which they were read.
        """
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


def event_files(sources: Sequence[str]) -> list[Path]:
    """List all event files in some files and folders. The files of a folder come in the order of their names.

    Args:
        sources: Files and folders.

    Returns:
        The event files. Files whose names begin with `_` or `.` are left out.

    Raises:
        UsageError: There are no event files, or a file has an unknown format.
    """
    files: list[Path] = []
    for source in map(Path, sources):
        inside = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        files += [path for path in inside if not path.name.startswith(("_", "."))]
    if not files:
        raise UsageError(f"no event files in {', '.join(sources)}; name event files, or folders that hold some")
    for path in files:
        if _format(path) not in FORMATS:
            raise UsageError(
                f"{path}: unknown kind of file; name files that end in .{', .'.join(FORMATS)}, each also with .gz"
            )
    return files


def event_seconds(lines: pa.LargeBinaryArray, layout: Layout) -> Seconds:
    """Find the event time of each line.

    All times count as UTC, because time zones in the lines are ignored.

    Args:
        lines: Lines of events.
        layout: The layout of all these lines.

    Returns:
        The event time of each line in epoch seconds. It is -1 for a line without a valid time. Times before the year
            2000 and times more than a day in the future are not valid.
    """
    before = layout.columns.index("event_time") if layout.format == "csv" else 0
    field = rf"^\x{{FEFF}}?(?:[^,\n]*,){{{before}}}\s*\"?" if layout.format == "csv" else r"\"event_time\"\s*:\s*\"?"
    texts = pa.LargeStringArray.from_buffers(len(lines), *lines.buffers()[1:], offset=lines.offset)
    times = pc.extract_regex(texts, rf"{field}(?P<time>[0-9][-0-9]*[T ]?[0-9:]*)")
    text = pc.replace_substring(pc.struct_field(times, "time"), "T", " ")
    moment = pc.strptime(pc.utf8_slice_codeunits(text, 0, 19), "%Y-%m-%d %H:%M:%S", "s", error_is_null=True)
    # Compare the day of the month in the text and in the parsed time, because strptime turns 30 February into a day in
    # March.
    same_day = pc.equal(pc.cast(pc.day(moment), pa.int32()), _digits(pc.utf8_slice_codeunits(text, 8, 10)))
    moment = pc.if_else(same_day, moment, None)
    is_number = pc.fill_null(pc.match_substring_regex(text, "^[0-9]{9,10}$"), False)
    epoch = pc.if_else(is_number, text, None).cast(pa.int64())
    seconds = pc.fill_null(pc.coalesce(moment.cast(pa.int64()), epoch), -1).to_numpy(zero_copy_only=False)
    latest = datetime.now(UTC).timestamp() + _DAY
    return np.where((seconds >= _EARLIEST) & (seconds <= latest), seconds, -1).astype(np.int64)


def _digits(text: Any) -> Any:
    return pc.if_else(pc.match_substring_regex(text, "^[0-9]+$"), text, None).cast(pa.int32())


def _filled(seconds: Seconds, last_known: int) -> tuple[Seconds, int]:
    """Give each line without an event time the time of the line before it.

    Returns:
        The times of all lines in epoch seconds, and the time of the last line as a separate number.
    """
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
    """Yield the lines of an event file with their line ends, some megabytes at a time.

    The header line of a CSV file is left out.
    """
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
                    raise UsageError(
                        f"{path}: the first line names no column event_time; add a header line to the file"
                    )
                layout = Layout("csv", names, header if header.endswith(b"\n") else header + b"\n")
            for data in _whole_lines(cast(BinaryIO, file)):
                yield layout, _lines(data)
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UsageError(f"{path} cannot be read ({error}); repair the file, or leave it out of the sources") from error


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
    """Read a Parquet file of events, and yield its rows as lines of CSV."""
    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name.lower() in FIELDS]
    if "event_time" not in map(str.lower, names):
        raise UsageError(f"{path}: there is no column event_time; rename the column with the events' times")
    layout = Layout("csv", tuple(map(str.lower, names)), (",".join(names).lower() + "\n").encode())
    for batch in file.iter_batches(batch_size=100_000, columns=names):
        texts = [column.cast(pa.string()) for column in pa.Table.from_batches([batch]).itercolumns()]
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(
            pa.table(texts, names=names), sink, pa.csv.WriteOptions(include_header=False, quoting_style="needed")
        )
        yield layout, _lines(sink.getvalue().to_pybytes())
