"""Delivers the made-up store's events as tables: most in time, a few at least a week late, and a few twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lambda_spark.synthetic.catalogue import Catalogue, catalogue
from lambda_spark.synthetic.model import Chunk, Ints, StoreSettings, Stream, chunks
from lambda_spark.synthetic.planted_trends import plants
from lambda_spark.synthetic.sessions import EVENT_TYPES, Day, Events, Visitors, day_of, joined, sessions, visitors

SCHEMA = pa.schema(
    [
        ("event_time", pa.timestamp("us", tz="UTC")),
        ("event_type", pa.dictionary(pa.int8(), pa.string())),
        ("product_id", pa.int64()),
        ("category_id", pa.int64()),
        ("category_code", pa.dictionary(pa.int32(), pa.string())),
        ("brand", pa.dictionary(pa.int32(), pa.string())),
        ("price", pa.float64()),
        ("user_id", pa.int64()),
        ("user_session", pa.dictionary(pa.int32(), pa.string())),
    ]
)
"""Columns of the event tables, in the order of the REES46 data.

Strings are dictionary-encoded in memory, but plain strings in files.
"""
LATE_DAYS = (7, 10)
"""Smallest and largest delay of a late event, in days.

A delay of at least 7 days moves an event to a later file in any case, because a file holds at most a week of events.
"""


def generate(settings: StoreSettings) -> Iterator[pa.Table]:
    """Make the events of the made-up store in the order of their delivery.

    Args:
        settings: Settings of the store.

    Yields:
        A table for each chunk, which is a day or a part of a day. It has the columns of SCHEMA, and its rows are in the
            order of arrival.
    """
    plan = chunks(settings)
    goods = catalogue(settings)
    planted = plants(settings, goods)
    everyone = visitors(settings, goods, plan)
    postponed: dict[int, list[Events]] = defaultdict(list)
    day: Day | None = None
    for chunk in plan:
        if day is None or plan[chunk.index - 1].day != chunk.day:
            day = day_of(chunk.day, settings, goods, planted, everyone)
        made = sessions(chunk, day, goods, planted, everyone, settings.random(Stream.EVENTS, chunk.index))
        arrived = _deliver(chunk, made, postponed, day.begin, settings)
        yield _as_table(arrived, goods, everyone, settings)


def _deliver(
    chunk: Chunk, made: Events, postponed: dict[int, list[Events]], midnight: int, settings: StoreSettings
) -> Events:
    """Split the events of a chunk (a day or part of a day) into those that arrive now and those that arrive later.

    Returns:
        The events that arrive with this chunk, including those that earlier chunks had postponed to this day. Events
            that arrive later go to `postponed`, under the index of their day of arrival.
    """
    rng = settings.random(Stream.DELIVERY, chunk.index)
    chance, delay = rng.random(len(made)), rng.integers(LATE_DAYS[0], LATE_DAYS[1] + 1, len(made))
    due = chunk.day + delay
    in_time = due < settings.days
    is_late = (chance < settings.late_share) & in_time
    is_repeated = (chance >= 1 - settings.repeat_share) & ~is_late
    again_later = is_repeated & in_time & (delay % 2 == 0)
    again_now = is_repeated & ~again_later

    for day in range(chunk.day + LATE_DAYS[0], min(chunk.day + LATE_DAYS[1] + 1, settings.days)):
        postponed[day].append(made.take(np.flatnonzero((is_late | again_later) & (due == day))))
    prompt = np.flatnonzero(~is_late)
    # Deliver all events that were postponed to this day with the day's first chunk. Mix them in at random times.
    overdue = joined([made.take(prompt[:0]), *postponed.pop(chunk.day, [])])
    repeated = made.take(np.flatnonzero(again_now))
    in_order = made.take(prompt)
    any_time = rng.integers(midnight, midnight + 86_400, len(overdue))
    arrival = np.concatenate([in_order.second, repeated.second + rng.integers(0, 90, len(repeated)), any_time])
    return joined([in_order, repeated, overdue]).take(np.argsort(arrival, kind="stable"))


def _as_table(events: Events, goods: Catalogue, everyone: Visitors, settings: StoreSettings) -> pa.Table:
    """Make a table of events. Ids and names replace the indices of products, brands, categories and users."""
    category = goods.category[events.product]
    codes, code_of = _dictionary(goods.category_code)
    brand = goods.brand[events.product].astype(np.int32)
    session, index = np.unique(events.session, return_inverse=True)
    names, lost = session_names(session, settings.seed)
    return pa.Table.from_arrays(
        [
            pa.array(events.second * 1_000_000).cast(pa.timestamp("us")).cast(SCHEMA.field("event_time").type),
            pa.DictionaryArray.from_arrays(events.kind, list(EVENT_TYPES)),
            pa.array(goods.product_id[events.product]),
            pa.array(goods.category_id[category]),
            pa.DictionaryArray.from_arrays(pa.array(code_of[category], mask=code_of[category] < 0), codes),
            pa.DictionaryArray.from_arrays(pa.array(brand, mask=brand < 0), goods.brands),
            pa.array(events.cents / 100),
            pa.array(everyone.user_id[events.user]),
            pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32), mask=lost[index]), names),
        ],
        schema=SCHEMA,
    )


def _dictionary(words: Sequence[str | None]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the sorted distinct words, and for each given word its index among them. None has the index -1."""
    distinct = sorted({word for word in words if word is not None})
    place = {word: number for number, word in enumerate(distinct)}
    return distinct, np.array([-1 if word is None else place[word] for word in words], np.int32)


def session_names(session: Ints, seed: int) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Make a UUID for each session, and choose the sessions that lose theirs.

    One session in a thousand loses its UUID, because the real store sometimes loses a session's UUID too. Both the UUID
    and the loss depend only on the session's number and the store's seed. So all events of a session agree, even if the
    events arrive in different files.

    Args:
        session: Numbers of the sessions.
        seed: Seed of the store.

    Returns:
        The UUID of each session, and for each session whether the UUID is lost.
    """
    halves = np.stack([_scramble(session, 2 * seed), _scramble(session, 2 * seed + 1)], axis=1)
    digits = np.frombuffer(halves.astype(">u8").tobytes().hex().encode(), np.uint8).reshape(-1, 32)
    text = np.full((len(session), 36), ord("-"), np.uint8)
    for begin, end, dashes in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        text[:, begin + dashes : end + dashes] = digits[:, begin:end]
    text[:, 14] = ord("4")  # version digit of the UUID; the next line sets the variant digit
    text[:, 19] = np.frombuffer(b"89ab", np.uint8)[(halves[:, 1] >> np.uint64(62)).astype(np.int64)]
    offsets = np.arange(len(session) + 1, dtype=np.int32) * 36
    whole = pa.StringArray.from_buffers(len(session), pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))
    return whole, halves[:, 0] % np.uint64(1000) == 0


def _scramble(number: Ints, seed: int) -> npt.NDArray[np.uint64]:
    """Scramble numbers with SplitMix64, which maps each 64-bit number to another one that looks random.

    No two numbers get the same result.

    Source:
        Steele, Lea and Flood, 2014.
    """
    z = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64((seed * 0xD1B54A32D192ED03 + 1) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
