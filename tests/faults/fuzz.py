"""Makes randomly damaged event lines, and judges in plain Python whether each line is a valid event.

The judgement does not use the project's parser. Some lines stay undecided, because only the parser's own rules can
decide them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

from lambda_spark.source_description import NULLS as DESCRIBED_NULLS
from tests.faults.oracle import Event

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
_KINDS = ("view", "cart", "remove_from_cart", "purchase")
NULLS = [text for text in DESCRIBED_NULLS if text]
_NOISE = [
    b"\0",
    b'"',
    b",",
    b",,",
    b"\xff",
    b"\xc3\xa9",
    b"\xe2\x80\xae",
    b"\\",
    b"'",
    b" ",
    b"\t",
    b"-",
    b"9" * 25,
    b"\x1b[2J",
    b"=",
    b"x" * 17_000,
    b"",
]


def good_line(dice: random.Random) -> bytes:
    day, second = dice.randrange(60), dice.randrange(86_400)
    moment = datetime.fromtimestamp(1_569_888_000 + 86_400 * day + second, UTC)
    category = dice.choice((b"a.b", b"electronics.smartphone", b""))
    return b"%s UTC,%s,%d,%d,%s,%s,%d.%02d,%d,%s" % (
        f"{moment:%Y-%m-%d %H:%M:%S}".encode(),
        dice.choice(_KINDS).encode(),
        dice.randrange(1, 50_000),
        dice.randrange(1, 500),
        category,
        dice.choice((b"acme", b"bolt", b"caf\xc3\xa9", b"")),
        dice.randrange(1000),
        dice.randrange(100),
        dice.randrange(1, 20_000),
        b"%08x" % dice.getrandbits(32),
    )


def mutated(line: bytes, dice: random.Random) -> bytes:
    """Damage a line one to three times, then remove all line ends from it.

    Each damage flips a bit, inserts odd bytes, or deletes, doubles or moves a part of the line.
    """
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        start = dice.randrange(len(line) + 1)
        end = min(len(line), start + dice.choice((1, 1, 2, 5, 20, 200)))
        accident = dice.randrange(5)
        if accident == 0:
            line = (
                line[:start]
                + bytes(byte ^ (1 << dice.randrange(8)) for byte in line[start : start + 1])
                + line[start + 1 :]
            )
        elif accident == 1:
            line = line[:start] + line[end:]
        elif accident == 2:
            line = line[:end] + line[start:end] + line[end:]
        elif accident == 3:
            line = line[:start] + dice.choice(_NOISE) + line[start:]
        else:
            line = line[end:] + line[:end]
    return line.translate(None, b"\n\r")


def fuzzed(count: int, seed: int) -> Iterator[bytes]:
    """Yield event lines. About half of them are damaged, and about one in ten repeats a recent line."""
    dice = random.Random(seed)
    recent: list[bytes] = []
    for _ in range(count):
        if recent and dice.random() < 0.1:
            yield dice.choice(recent)
            continue
        line = good_line(dice)
        if dice.random() < 0.5:
            line = mutated(line, dice)
        recent = [*recent[-99:], line]
        yield line


def judged(line: bytes) -> Event | str | None:
    """Judge whether a line is a valid event, without the project's parser.

    Returns:
        The event if the line is certainly valid, None if it is certainly invalid. Otherwise the reason why this
        function cannot decide.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\0" in text or len(text) > 16_384 or not text.strip(" "):
        return None
    if '"' in text:
        return "quotes: the CSV parser's own rules"
    fields = [field.strip(" ") for field in text.split(",")]
    if len(fields) != 9:
        return None
    time, kind, product, category_id, category, brand, price, user, session = fields
    if kind not in _KINDS:
        return None
    numbers = []
    if session and (user in {"", *NULLS} or re.fullmatch(r"-\d+|0+", user)):
        return "a guest"
    for number in (product, user):
        if not re.search(r"\d", number):
            return None
        if not re.fullmatch(r"0|-?[1-9]\d*", number, re.ASCII):
            return "an id in another form"
        if not 0 < int(number) < 2**63:
            return None
        numbers.append(int(number))
    if re.search(r"[eE]\+", category_id) or {category_id, category, brand, session} & set(NULLS):
        return "a value that may mean null"
    if not _TIME.fullmatch(time):
        return "a time in another form" if re.search(r"\d", time) else None
    try:
        moment = datetime.strptime(time, "%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return None
    if moment < datetime(2000, 1, 1) or moment > datetime.now():
        return "a time at the edge" if moment.year >= datetime.now().year else None
    if price and not re.fullmatch(r"\d{1,9}(\.\d\d)?", price, re.ASCII):
        return "a price in another form"
    product_id, user_id = numbers
    return Event(
        moment,
        kind,
        product_id,
        category_id or None,
        category or None,
        brand or None,
        Decimal(price) if price else None,
        user_id,
        session or None,
    )
