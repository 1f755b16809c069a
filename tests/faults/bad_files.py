"""Bad input files for the tests: the bytes of each file and the result that ingestion must give."""

from __future__ import annotations

import gzip
import io
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.histories import HEADER

NAMES = tuple(HEADER.split(","))
MARK = "\ufeff"


class Bad(NamedTuple):
    """A bad file and its expected result: new events, reasons of rejected lines, or why the file is refused."""

    name: str
    content: bytes
    events: int = 0
    rejected: tuple[str, ...] = ()
    refused: str = ""


def line(number: int, **fields: str) -> str:
    """Return a valid CSV line with the given fields changed. Different numbers give different lines."""
    values = {
        "event_time": f"2019-10-{1 + number % 28:02} 10:00:00 UTC",
        "event_type": "view",
        "product_id": str(1000 + number),
        "category_id": "7",
        "category_code": "a.b",
        "brand": "acme",
        "price": "5.00",
        "user_id": str(number),
        "user_session": "s",
        **fields,
    }
    return ",".join(values[name] for name in NAMES)


def csv(*lines: str | bytes, header: str | None = HEADER, end: bytes = b"\n") -> bytes:
    texts = [*([] if header is None else [header]), *lines]
    return end.join([text if isinstance(text, bytes) else text.encode() for text in texts] + [b""])


def one_field(name: str, start: int, reason: str, *values: str) -> Bad:
    """Return a file with one line for each bad value of one field, and a valid line at the end."""
    bad = [line(start + at, **{name: value}) for at, value in enumerate(values)]
    return Bad(f"{name}-{start}.csv", csv(*bad, line(start + len(values))), 1, (reason,) * len(values))


def parquet(**columns: pa.Array) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def parquet_events(start: int, count: int, **columns: pa.Array) -> bytes:
    good = {
        "event_time": pa.array(["2019-10-05 10:00:00 UTC"] * count),
        "event_type": pa.array(["view"] * count),
        "product_id": pa.array(range(start, start + count), pa.int64()),
        "user_id": pa.array(range(start, start + count), pa.int64()),
    }
    return parquet(**{**good, **columns})


def no_utf8(*values: bytes) -> pa.Array:
    """Return a Parquet text column whose bytes may be invalid UTF-8, as a careless program may write it."""
    plain = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), plain.buffers())


def json_line(number: int, **fields: str) -> str:
    """Return a valid JSON line with the given fields changed. The caller gives the new values as JSON text."""
    values = {
        "event_time": '"2019-10-03T10:00:00Z"',
        "event_type": '"view"',
        "product_id": str(number),
        "user_id": str(number),
        **fields,
    }
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


SOON = datetime.now(UTC) + timedelta(days=3)
WHOLE_GZIP = gzip.compress(csv(*(line(number) for number in range(5000, 9000))), mtime=0)
WHOLE_PARQUET = parquet_events(9000, 50)
DEEP = 2500

FORMULAS = (
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "+1-1",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "'; drop table events; --",
    "${jndi:ldap://example.com/a}",
    "{{7*7}}",
    "\\N",
    "null",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
)
"""Dangerous brand names that a spreadsheet, a browser, a database or a terminal could execute."""

CORPUS = (
    Bad("cut-line.csv", csv(line(1), line(2)[:40])[:-1], 1, ("too few fields",)),
    Bad("cut-in-the-user.csv", csv(line(3), line(4).rsplit(",", 1)[0])[:-1], 1, ("too few fields",)),
    Bad("too-many.csv", csv(line(5) + ",more", line(6)), 1, ("too many fields",)),
    Bad("open-quote.csv", csv(line(7, brand='"acme'), line(8)), 1, ("quotes are not balanced",)),
    Bad("quoted-line-end.csv", csv(line(9, brand='"ac\nme"'), line(10)), 1, ("too few fields",) * 2),
    Bad("nul.csv", csv(line(11, brand="ac\0me"), line(12)), 1, ("NUL character in the line",)),
    Bad("latin-1.csv", csv(line(13, brand="café").encode("latin-1"), line(14)), 1, ("not valid UTF-8",)),
    Bad("utf-16.csv", csv(line(15)).decode().encode("utf-16"), refused="no column event_time"),
    Bad("utf-16-be.csv", (MARK + csv(line(16)).decode()).encode("utf-16-be"), refused="no column event_time"),
    Bad("utf-8-mark.csv", MARK.encode() + csv(line(17)), 1),
    Bad("mark-quoted.csv", csv(line(18), header=MARK + '"' + HEADER.replace(",", '","') + '"'), 1),
    Bad("carriage-returns.csv", csv(line(19), line(20), end=b"\r\n"), 2),
    Bad("old-line-ends.csv", csv(line(21), line(22), end=b"\r"), 2),
    Bad("no-last-line-end.csv", csv(line(23))[:-1], 1),
    Bad("empty-lines.csv", csv(line(24), "", "   ", line(25)), 2, ("empty line",) * 2),
    Bad("truncated.csv.gz", WHOLE_GZIP[: len(WHOLE_GZIP) // 2], refused="EOFException"),
    Bad("no-gzip.csv.gz", csv(line(26)), refused="cannot be read"),
    Bad("damaged.csv.gz", WHOLE_GZIP[:2000] + b"\0\1\2\3" + WHOLE_GZIP[2004:], refused="cannot be read"),
    Bad("empty.csv", b"", refused="the file is empty"),
    Bad("empty.parquet", b"", refused="Parquet"),
    Bad("empty.csv.gz", gzip.compress(b"", mtime=0), refused="the file is empty"),
    Bad("two-members.csv.gz", gzip.compress(csv(line(27)), mtime=0) + gzip.compress(csv(line(28), header=None)), 2),
    Bad("header-only.csv", csv()),
    Bad("other-order.csv", csv("5,view,31,2019-10-03", header="user_id,event_type,product_id,event_time"), 1),
    Bad("other-case.csv", csv("5,view,32,2019-10-03", header="User_ID, Event_Type ,PRODUCT_ID,event_time"), 1),
    Bad("no-user.csv", csv("view,33,2019-10-03", header="event_type,product_id,event_time"), refused="no column user_"),
    Bad("no-header.csv", csv(line(39, user_session="ab-cd"), header=None), refused="no column event_time"),
    Bad("twice.csv", csv(line(34) + ",1", header=HEADER + ",user_id"), refused="column user_id appears more than once"),
    Bad("semicolons.csv", csv(line(35).replace(",", ";"), header=HEADER.replace(",", ";")), refused="no column"),
    Bad("texts.parquet", parquet_events(9800, 2, price=pa.array(["2.50", "cheap"])), 1, ("price is malformed",)),
    Bad("very-wide.csv", csv(line(38), header=HEADER + "," + ",".join("x" * 5_000)), refused="columns"),
    Bad("wide.csv", csv(line(36), header=HEADER + "," + ",".join("x" * 30_000)), refused="header"),
    Bad("long-header.csv", csv(line(37), header=HEADER + "," + "x" * 100_000), refused="header"),
    Bad("page.csv", b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n", refused="no column"),
    Bad("picture.png", b"\x89PNG\r\n\x1a\n", refused="unknown kind of file"),
    one_field("event_type", 100, "event_type is unknown", "like", "VIEW", "view;drop", "=view"),
    one_field("event_time", 200, "event_time is malformed", "2019-13-01 00:00:00 UTC", "2019-02-29", "0000-00-00",
              "2019-10-01 25:00:00", "10/01/2019", "now", "epoch", "tomorrow", "12:30", "99999999999999", "1e9999",
              "1e-999999999", "1e-500000000"),
    one_field("event_time", 300, "event_time is before 2010-01-01", "0001-01-01 00:00:00 UTC", "1969-12-31", "0", "-1"),
    one_field("event_time", 400, "event_time is in the future", "9999-12-31 23:59:59 UTC",
              f"{SOON:%Y-%m-%d %H:%M:%S} UTC", "99999999999"),
    one_field("product_id", 500, "product_id is malformed", "9223372036854775808", "-9223372036854775809", "1" * 400,
              "12.7", "1_000", "0x10", "1e3", "NaN", "Infinity", "١٢", "12\u00a0"),
    one_field("product_id", 600, "product_id is not above 0", "0", "-1", "-9223372036854775808"),
    one_field("user_id", 700, "user_id is malformed", "9223372036854775808", "true", "null", "one"),
    one_field("category_id", 800, "category_id is malformed", "a.b", "18446744073709551616"),
    one_field("price", 900, "price is malformed", "NaN", "-NaN", "Infinity", "1e400", "1e-999999999", "1e-500000000",
              "10000000000.00", "5€"),
    one_field("price", 1000, "price is below 0", "-0.01", "-5", "-9999999999.99"),
    Bad("many-reasons.csv", csv(line(40, event_type="", product_id="x", price="-1"), line(41)), 1,
        ("event_type is missing", "product_id is malformed", "price is below 0")),
    Bad("field-10mb.csv", csv(line(42), line(43, brand="x" * 10_000_000), line(44)), 2,
        ("line longer than 16384 characters",)),
    Bad("quoted-10mb.csv", csv(line(45, brand='"' + "x" * 10_000_000), line(46)), 1,
        ("line longer than 16384 characters",)),
    Bad("formulas.csv", csv(*(line(50 + at, brand=text) for at, text in enumerate(FORMULAS))), len(FORMULAS)),
    Bad("bad.jsonl", csv("{not json", "[]", "5", json_line(70), "{}" , header=None), 1,
        ("not a JSON object of known form",) * 3 + ("event_time is missing", "event_type is missing",
        "product_id is missing", "user_id is missing")),
    Bad("numbers.jsonl", csv(json_line(71, product_id="9" * 400), json_line(72, price="NaN"),
        json_line(73, price='"-1"'), json_line(74, user_id="1.5"), json_line(75, product_id='"76"'), header=None), 1,
        ("product_id is malformed", "price is malformed", "price is below 0", "user_id is malformed")),
    Bad("deep.jsonl", csv(json_line(77, brand='{"a":' * DEEP + "1" + "}" * DEEP), json_line(78), header=None), 1,
        ("not a JSON object of known form",)),
    Bad("cut.json", csv(json_line(79), json_line(80)[:50], header=None)[:-1], 1, ("not a JSON object of known form",)),
    Bad("array.json", b"[\n" + json_line(81).encode() + b"\n]\n", 1, ("not a JSON object of known form",) * 2),
    Bad("nul.jsonl", csv(json_line(82, brand='"ac\\u0000me"'), json_line(83), header=None), 1,
        ("NUL character in the line",)),
    Bad("no-parquet.parquet", b"this is no Parquet", refused="Parquet"),
    Bad("empty-but-magic.parquet", b"PAR1PAR1", refused="Parquet"),
    Bad("truncated.parquet", WHOLE_PARQUET[: len(WHOLE_PARQUET) // 2], refused="Parquet"),
    Bad("damaged.parquet", WHOLE_PARQUET[:200] + b"\xff" * 64 + WHOLE_PARQUET[264:], refused="cannot be read"),
    Bad("other-columns.parquet", parquet(a=pa.array([1])), refused="no column event_time"),
    Bad("same-but-for-case.parquet", parquet_events(9100, 1, brand=pa.array(["a"]), Brand=pa.array(["b"])),
        refused="Parquet"),
    Bad("nanoseconds.parquet",
        parquet_events(9200, 1, event_time=pa.array([1_570_000_000_000_000_000], pa.timestamp("ns"))), refused="NANOS"),
    Bad("no-utf8.parquet", parquet_events(9300, 2, brand=no_utf8(b"caf\xe9", b"cafe")), 1, ("not valid UTF-8",)),
    Bad("field-10mb.parquet", parquet_events(9400, 2, brand=pa.array(["x" * 10_000_000, "x"])), 1,
        ("line longer than 16384 characters",)),
    Bad("nul.parquet", parquet_events(9500, 2, brand=pa.array(["ac\0me", "acme"])), 1, ("NUL character in the line",)),
    Bad("numbers.parquet", parquet_events(9600, 3, price=pa.array([float("nan"), -1.0, 2.5])), 1,
        ("price is malformed", "price is below 0")),
    Bad("odd-names.parquet",
        parquet_events(9900, 2, **{"a`b": pa.array(["x", "y"]), "_metadata": pa.array(["m", "n"])}), 2),
    Bad("nested.parquet", parquet_events(9700, 1, brand=pa.array([{"a": [1, 2]}]), extra=pa.array([[b"\xff"]])), 1),
    Bad("' or 1=1; drop table events; --.csv", csv(line(90)), 1),
    Bad("new\nline\x1b[2J, {a,b} %41 [x] *?.csv", csv(line(91)), 1),
    Bad("café.csv", csv(line(92)), 1),
)  # fmt: skip
