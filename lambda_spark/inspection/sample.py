"""Reads a sample of a log: its first records, each as texts by column or path, and how they are written.

DuckDB finds the delimiter and the quotes of CSV, and reads Parquet. The bytes are decoded before, because DuckDB reads
few encodings. JSON is split into its values here, because DuckDB's reader ends at the first line that is
no JSON, and takes one value a line where there are several.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from lambda_spark.errors import UsageError
from lambda_spark.inspection.names import is_known

MAX_RECORDS = 10_000
"""Largest number of records in a sample."""
_MAX_FILES = 8
"""Largest number of files in a sample."""
_MAX_BYTES = 2 * 2**20
"""Largest number of bytes that are read from a file."""
DELIMITERS = (",", ";", "\t", "|")
_WESTERN = "windows-1252"
_WRONG = "\ufffd"
"""Stands for a byte that is not of the encoding."""
_FEW_WRONG = 0.1
"""Largest number of wrong bytes, for each character that is right and no ASCII, that are bad records."""
_RARELY_WRONG = 0.001
"""Largest number of wrong bytes, for each line, that are bad records."""

csv.field_size_limit(_MAX_BYTES)

_BEGIN = re.compile(r"[^\s,\[\]]")
"""Where a value may begin: not in the blanks, commas and brackets between the elements of an array."""

Row = dict[str, str | None]


class Number(str):
    """A number in JSON, as it is written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a log's files are written."""

    format: str
    """csv, json, parquet or delta."""
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    escape: str = '"'
    header: bool | None = True
    """csv: whether files begin with a line of column names. None: the sample does not tell."""
    multiline: bool = False
    has_mark: bool = False
    """Whether the first file begins with a byte-order mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The first records of a log."""

    files: tuple[Path, ...]
    more_files: int
    dialect: Dialect
    columns: tuple[str, ...]
    """csv: the columns in their order. Else the paths of all values outside of arrays."""
    records: list[Any]
    """Records as parsed: texts by column for csv, else nested dictionaries and lists."""
    arrays: tuple[str, ...] = ()
    """Paths of arrays of objects, each of which may be exploded."""
    types: dict[str, str] = field(default_factory=dict)
    """Types of the columns, where the format has them."""
    unreadable: Counter[str] = field(default_factory=Counter)
    """Number of records that cannot be read, by reason."""
    notes: tuple[str, ...] = ()
    """What a person should know about the files."""
    lines_above: int = 0
    """csv: number of lines above the table in the first file, which are no part of it."""
    not_in_all: frozenset[str] = frozenset()
    """csv: columns that some files lack."""
    _rows: dict[str, list[Row]] = field(default_factory=dict, repr=False)

    def rows(self, explode: str = "") -> list[Row]:
        """Return the records as texts by column or path.

        Args:
            explode: Path of an array whose elements are a row each. A record without it is one row.
        """
        if self.dialect.format == "csv":
            return list(self.records)
        # Keep the rows, because several descriptions are tried on them.
        if explode not in self._rows:
            self._rows[explode] = [row for record in self.records for row in _exploded(record, explode)]
        return self._rows[explode]


def read_sample(names: Sequence[str | Path]) -> Sample:
    """Read the first records of a log.

    Args:
        names: Files and folders of one log.

    Raises:
        UsageError: A file is missing, empty, or in no format that is known.
    """
    folders = [Path(name) for name in names]
    for folder in folders:
        if not folder.exists():
            raise UsageError(f"{folder}: no such file or folder")
        if (folder / "_delta_log").is_dir():
            return _delta_sample(folder)
    files = [file for folder in folders for file in _files_in(folder)]
    if not files:
        raise UsageError(f"{folders[0]}: the folder has no files")
    full = [file for file in files if file.stat().st_size]
    if not full:
        raise UsageError(f"{files[0]} is empty: there is nothing to look at")
    chosen = full[:: -(-len(full) // _MAX_FILES)]
    if _head(chosen[0], 4) == b"PAR1":
        return _parquet_sample(chosen, len(files) - len(chosen), "parquet")
    return _text_sample(chosen, len(files) - len(chosen))


def _files_in(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    return [file for file in inside if not any(part[0] in "._" for part in file.relative_to(path).parts)]


def _head(file: Path, size: int) -> bytes:
    """Read the first bytes of a file, unpacked as its name says."""
    parts, wanted = [], size
    try:
        with pa.input_stream(str(file), compression="detect") as stream:
            while wanted and (part := stream.read(wanted)):
                parts.append(part)
                wanted -= len(part)
    except (OSError, pa.ArrowException) as error:
        if not parts:
            raise UsageError(f"{file} can't be read: {str(error).splitlines()[0]}") from None
    return b"".join(parts)


# --- Text files -------------------------------------------------------------------------------------------------------


def _text_sample(files: Sequence[Path], more_files: int) -> Sample:
    heads = {file: _head(file, _MAX_BYTES) for file in files}
    heads = {file: head for file, head in heads.items() if head.strip()}
    if not heads:
        raise UsageError(f"{files[0]} is empty: there is nothing to look at")
    first = next(iter(heads.values()))
    encoding, notes = _encoding(b"".join(heads.values()), first)
    if encoding != "utf-16" and b"\0" in first:
        raise UsageError(f"{files[0]} is neither text nor Parquet")
    texts = {file: _decoded(head, encoding) for file, head in heads.items()}
    dialect = Dialect(format="csv", encoding=encoding, has_mark=first[:3] == codecs.BOM_UTF8)
    begin = next(iter(texts.values())).lstrip()
    reader = _json_sample if begin[:1] in ("{", "[") else _csv_sample
    return reader(texts, more_files, dialect, notes)


def _encoding(everything: bytes, first: bytes) -> tuple[str, tuple[str, ...]]:
    """Find the encoding of texts: UTF-8, or UTF-16 by its mark, or the one of Western Windows."""
    if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16", ()
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(everything)
    wrong = text.count(_WRONG)
    if not wrong:
        return "utf-8", ()
    right = sum(character > "\x7f" for character in text) - wrong
    lines = zip(text.split("\n"), everything.split(b"\n"), strict=True)
    western = " ".join(line.decode(_WESTERN, "replace") for read, line in lines if _WRONG in read)
    words = dict.fromkeys(word for word in re.findall(r"[^\W\d_]+", western) if not word.isascii())
    shown = ", ".join([*words][:3])
    # Other encodings of Latin letters hardly ever make a valid sequence of UTF-8. So few wrong bytes are bad records.
    if wrong <= _FEW_WRONG * right or wrong <= _RARELY_WRONG * everything.count(b"\n"):
        return "utf-8", (f'a few bytes are no UTF-8; encoding = "{_WESTERN}" would read them as: {shown}',)
    return _WESTERN, (f"the bytes are no UTF-8; read as {_WESTERN}: check these words: {shown}",)


def _decoded(head: bytes, encoding: str) -> str:
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head).removeprefix("\ufeff")
    if len(head) < _MAX_BYTES:
        return text
    # Leave out the last line, because it may be cut.
    return text[: text.rfind("\n") + 1] or text


def partition_values(file: Path) -> Row:
    """Return the columns that a file's folders hold, like `event_type=view`."""
    values: Row = {}
    for part in file.parent.parts:
        name, is_partition, value = part.partition("=")
        if is_partition and name.isidentifier():
            values[name] = value
    return values


# --- CSV --------------------------------------------------------------------------------------------------------------


def _csv_sample(texts: dict[Path, str], more_files: int, dialect: Dialect, notes: tuple[str, ...]) -> Sample:
    first = next(iter(texts))
    dialect = _sniffed(texts[first], dialect)
    unreadable: Counter[str] = Counter()
    most = MAX_RECORDS // len(texts)
    read = {file: _table(text, dialect, most, unreadable) for file, text in texts.items()}
    tables = {file: table for file, (table, _) in read.items()}
    dialect = replace(
        dialect,
        header=has_header(tables[first]),
        multiline=any("\n" in cell for table in tables.values() for line in table for cell in line),
    )
    records: list[Row] = []
    headers: dict[Path, tuple[str, ...]] = {}
    for file, table in tables.items():
        headers[file] = _names(table[0], dialect.header)
        lines = table[1:] if dialect.header else table
        partition = partition_values(file)
        records += [{**dict(zip(headers[file], line, strict=True)), **partition} for line in lines]
    if not records:
        raise UsageError(f"{first} has a line of column names and no records: there is nothing to look at")
    columns = dict.fromkeys(name for header in headers.values() for name in header)
    shared = {name for name in columns if all(name in header for header in headers.values())}
    columns |= dict.fromkeys(name for file in tables for name in partition_values(file))
    return Sample(
        files=tuple(texts),
        more_files=more_files,
        dialect=dialect,
        columns=tuple(columns),
        records=records,
        unreadable=+unreadable,
        notes=(*notes, *_differences(headers)),
        lines_above=read[first][1],
        not_in_all=frozenset(name for header in headers.values() for name in header if name not in shared),
    )


def _sniffed(text: str, dialect: Dialect) -> Dialect:
    """Let DuckDB find the delimiter and the quotes."""
    query = "select Delimiter, Quote, Escape, len(Columns) from sniff_csv(?, all_varchar = true)"
    with tempfile.TemporaryDirectory(prefix="inspect-") as folder, duckdb.connect() as connection:
        copy = Path(folder, "sample.csv")
        copy.write_text(text, encoding="utf-8", newline="")
        try:
            [(delimiter, quote, escape, columns)] = connection.execute(query, [str(copy)]).fetchall()
        except duckdb.Error:
            delimiter, quote, escape, columns = ",", '"', '"', 1
    if columns == 1:
        # DuckDB gives up where a few lines have too many or too few fields. Take what most lines agree on.
        delimiter = _usual_delimiter(text)
    # Without quotes in the sample, keep RFC 4180's, because a later line may have some.
    quote = quote if quote not in (None, "", "(empty)") else '"'
    escape = escape if escape == "\\" else quote
    return replace(dialect, delimiter=delimiter, quote=quote, escape=escape)


def _usual_delimiter(text: str) -> str:
    lines = text.splitlines()[:1000]

    def agreement(delimiter: str) -> int:
        counts = Counter(line.count(delimiter) for line in lines)
        del counts[0]
        return max(counts.values(), default=0)

    return max(DELIMITERS, key=agreement)


def _table(text: str, dialect: Dialect, most: int, unreadable: Counter[str]) -> tuple[list[list[str]], int]:
    """Split a file into records, its header included, and count those with too many or too few fields.

    Returns:
        The records, and the number of lines above the first one.
    """
    escapes = dialect.escape == "\\"
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        doublequote=not escapes,
        escapechar="\\" if escapes else None,
    )
    lines = []
    for line in filter(None, islice(reader, most + 1)):
        if any(_WRONG in cell for cell in line):
            unreadable[f"not valid {dialect.encoding}"] += 1
        else:
            lines.append(line)
    [(width, _)] = Counter(map(len, lines)).most_common(1)
    unreadable["too few fields"] += sum(len(line) < width for line in lines)
    unreadable["too many fields"] += sum(len(line) > width for line in lines)
    above = next(number for number, line in enumerate(lines) if len(line) == width)
    return [line for line in lines if len(line) == width], above


def has_header(table: Sequence[Sequence[str]]) -> bool | None:
    """Tell whether the first line of a table has the names of the columns.

    Returns:
        None where it may be a name or a value: a table of words whose first line has no name that is known.
    """
    first, others = table[0], table[1:]
    known = sum(is_known(name) for name in first)
    data = [looks_like_data(cell) for cell in first]
    if known > 1 or (known and not any(data)):
        return True
    if any(data):
        return False
    for index in range(len(first)):
        below = [line[index] for line in others if line[index].strip()]
        if below and all(map(looks_like_data, below)):
            return True
    return None


def looks_like_data(cell: str) -> bool:
    """Return whether a cell is a number, a date, or an id with digits, as no name of a column is."""
    return bool(re.match(r"\s*[-+]?\d", cell)) or bool(re.fullmatch(r"[0-9a-fA-F-]{32,36}", cell))


def _names(first: Sequence[str], header: bool | None) -> tuple[str, ...]:
    if header:
        return tuple(name.strip() for name in first)
    return tuple(f"column{number}" for number in range(1, len(first) + 1))


def _differences(headers: dict[Path, tuple[str, ...]]) -> Iterator[str]:
    (first, names), *others = headers.items()
    for file, header in others:
        if set(header) != set(names):
            more, less = sorted(set(header) - set(names)), sorted(set(names) - set(header))
            yield (
                f"{file.name} has other columns than {first.name}: it lacks {', '.join(less) or 'none'} and adds "
                f"{', '.join(more) or 'none'}; files of different columns need a description each"
            )


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json_sample(texts: dict[Path, str], more_files: int, dialect: Dialect, notes: tuple[str, ...]) -> Sample:
    unreadable: Counter[str] = Counter()
    records: list[dict[str, Any]] = []
    multiline = False
    for file, text in texts.items():
        for value, begin, end in islice(json_values(text, unreadable), MAX_RECORDS // len(texts)):
            multiline |= "\n" in text[begin:end]
            records.append({**partition_values(file), **value})
    if not records:
        raise UsageError(f"{next(iter(texts))} has no JSON object: there is nothing to look at")
    # One array over several lines is one value over several lines, even where each object has a line of its own.
    array = next(iter(texts.values())).strip()
    multiline |= array[0] == "[" and "\n" in array and not array.splitlines()[0].rstrip().endswith("]")
    return Sample(
        files=tuple(texts),
        more_files=more_files,
        dialect=replace(dialect, format="json", multiline=multiline),
        columns=tuple(dict.fromkeys(path for record in records for path in _exploded(record, "")[0])),
        records=records,
        arrays=tuple(dict.fromkeys(path for record in records for path in _arrays_of_objects(record))),
        unreadable=unreadable,
        notes=notes,
    )


def json_values(text: str, unreadable: Counter[str]) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Split a text into its JSON objects: one or several a line, over several lines, or in an array.

    Args:
        text: The text, which may be cut at a line's end.
        unreadable: Counts the lines that hold something else.

    Yields:
        Each object, with the positions of its begin and its end in the text.
    """
    decoder = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=Number)
    at = 0
    while begin := _BEGIN.search(text, at):
        try:
            value, end = decoder.raw_decode(text, begin.start())
        except json.JSONDecodeError:
            value, end = None, text.find("\n", begin.start())
        if isinstance(value, dict):
            yield value, begin.start(), end
        elif not at or "\n" in text[at : begin.start()]:
            # What follows an object on its line is no record of its own.
            unreadable["no JSON object"] += 1
        at = end if end >= 0 else len(text)


def _arrays_of_objects(record: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _arrays_of_objects(value, f"{prefix}{name}.")
        elif isinstance(value, list) and any(isinstance(element, dict) for element in value):
            yield prefix + name


def _exploded(record: dict[str, Any], explode: str) -> list[Row]:
    """Turn a record into one row, or into one row for each element of an array."""
    elements: Any = record
    for name in explode.split(".") if explode else ():
        elements = elements.get(name) if isinstance(elements, dict) else None
    if not explode or not isinstance(elements, list) or not elements:
        return [dict(_texts(record, ""))]
    row = dict(_texts(record, "", explode))
    return [
        {**row, **dict(_texts(element, f"{explode}."))}
        if isinstance(element, dict)
        else {**row, explode: _json_text(element)}
        for element in elements
    ]


def _texts(value: dict[str, Any], prefix: str, without: str = "") -> Iterator[tuple[str, str | None]]:
    for name, inner in value.items():
        if prefix + name == without:
            continue
        if isinstance(inner, dict):
            yield from _texts(inner, f"{prefix}{name}.", without)
        elif inner is None or isinstance(inner, str):
            yield prefix + name, inner
        else:
            yield prefix + name, _json_text(inner)


def _json_text(value: Any) -> str:
    """Write a value as JSON, with its numbers as they were."""
    if isinstance(value, Number):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(_json_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(name)}:{_json_text(inner)}' for name, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


# --- Parquet and Delta ------------------------------------------------------------------------------------------------


def _delta_sample(folder: Path) -> Sample:
    try:
        files = [Path(uri.removeprefix("file://")) for uri in DeltaTable(str(folder)).file_uris()]
    # Catch every exception, because delta-rs raises many kinds.
    except Exception as error:
        raise UsageError(f"{folder} can't be read as a Delta table: {str(error).splitlines()[0]}") from None
    if not files:
        raise UsageError(f"{folder} is an empty Delta table: there is nothing to look at")
    return _parquet_sample(files[:_MAX_FILES], len(files[_MAX_FILES:]), "delta")


def _parquet_sample(files: Sequence[Path], more_files: int, name: str) -> Sample:
    source = "read_parquet(?, union_by_name = true, hive_partitioning = true)"
    with duckdb.connect() as connection:
        try:
            described = connection.execute(f"describe select * from {source}", [list(map(str, files))]).fetchall()
            query = f"select cast(to_json(lines) as varchar) from {source} as lines limit {MAX_RECORDS}"
            lines = connection.execute(query, [list(map(str, files))]).fetchall()
        except duckdb.Error as error:
            raise UsageError(f"{files[0]} can't be read as Parquet: {str(error).splitlines()[0]}") from None
    if not lines:
        raise UsageError(f"{files[0]} has no records: there is nothing to look at")
    texts = {files[0]: "\n".join(line for (line,) in lines)}
    types = {str(column): str(type_) for column, type_, *_ in described}
    read = _json_sample(texts, more_files, Dialect(format=name), ())
    return replace(read, files=tuple(files), types=types, dialect=Dialect(format=name))
