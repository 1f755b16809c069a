"""Strategies for the library hypothesis that draw random histories of small stores.

A history consists of events, the text formats of the events' fields, and the order in which the events arrive.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.deliveries import text_product, text_user
from tests.faults.oracle import Event

LONGER = int(os.environ.get("LONGER", "1"))
"""The factor by which tests try more examples. `LONGER=20` in the environment tries 20 times as many.

With a factor above 1, each test run draws different examples."""

HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"

_START = datetime(2019, 3, 1)
_KINDS = ["view", "view", "view", "cart", "purchase", "purchase", "remove_from_cart"]
# Times of day for events: noon and seconds around midnight. Midnight splits a session into two baskets.
_SECONDS = [43_200, 43_201, 86_398, 86_399, 86_400, 86_401]
# Days of events, counted from the start of the history. The order of arrival is random, so an event may arrive days
# or months late.
_DAYS = [0, 0, 1, 6, 7, 45, 120]
# Days of single events of a wrong clock.
_WRONG_DAYS = [400, 401, 700]
# Size of the crawler's basket in a store with wrong clocks. It raises the average number of events per date so far that
# one or two events are few.
_BUSY = 120
# Product attributes: category id, category, brand and price. Events of one product may have different attributes,
# because attributes change over time.
_ATTRIBUTES = [
    (None, None, None, None),
    (7, "a.b", "acme", Decimal("5.00")),
    (7, "a.b", None, Decimal("0.00")),
    (8, "a.c", "bolt", Decimal("19.90")),
]


class History(NamedTuple):
    """The events of a store, grouped by the micro-batch in which they arrive. Some events arrive repeatedly."""

    arrivals: tuple[tuple[Event, ...], ...]

    @property
    def events(self) -> set[Event]:
        return {event for arrival in self.arrivals for event in arrival}

    def with_ids(self, ids: str) -> History:
        """Return the same history with product and user ids of a kind, in place of whole numbers."""
        if ids == "integer":
            return self
        return History(
            tuple(
                tuple(e._replace(product=text_product(e.product), user=text_user(e.user)) for e in arrival)
                for arrival in self.arrivals
            )
        )


def trials(count: int) -> settings:
    """Return hypothesis settings for `count` examples. Without `LONGER`, every run tries the same examples."""
    return settings(
        max_examples=count * LONGER,
        derandomize=LONGER == 1,
        database=None,
        deadline=None,
        # Search for the smallest failing example only in long runs, because the search needs hundreds of Spark jobs.
        phases=(Phase.generate, Phase.shrink) if LONGER > 1 else (Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


_events = st.builds(
    lambda day, second, kind, product, attributes, user, session: Event(
        _START + timedelta(days=day, seconds=second), kind, product, *attributes, user, session
    ),
    st.sampled_from(_DAYS),
    st.sampled_from(_SECONDS),
    st.sampled_from(_KINDS),
    st.integers(1, 6),
    st.sampled_from(_ATTRIBUTES),
    st.integers(1, 3),
    st.sampled_from(["s", "t", None]),
)


@st.composite
def histories(draw: st.DrawFn, *, most_events: int = 16, most_arrivals: int = 4, longest_basket: int = 20) -> History:
    """Draw a random history of a store, with cases that are hard to process.

    The history may have sessions over midnight, users who share a session name, a crawler's large basket, and repeated
    events. A few events may be set aside because of a wrong clock. The events arrive in any order.
    """
    events = draw(st.lists(_events, min_size=1, max_size=most_events))
    wrong_clocks = draw(st.lists(st.sampled_from(_WRONG_DAYS), max_size=2)) if draw(st.booleans()) else []
    crawled = _BUSY if wrong_clocks else draw(st.sampled_from([0, 0, longest_basket]))
    night = _START + timedelta(days=1, seconds=-crawled)
    events += [
        Event(night + timedelta(seconds=2 * (at // 2)), "view", 1 + (7 * at) % (crawled + 3), *_ATTRIBUTES[0], 4, "bot")
        for at in range(crawled)
    ]
    events += [draw(_events)._replace(time=_START + timedelta(days=day)) for day in wrong_clocks]
    events += draw(st.lists(st.sampled_from(events), max_size=4))
    count = draw(st.integers(1, most_arrivals))
    places = draw(st.lists(st.integers(0, count - 1), min_size=len(events), max_size=len(events)))
    arrivals: list[list[Event]] = [[] for _ in range(count)]
    for event, place in zip(events, places, strict=True):
        arrivals[place].append(event)
    return History(tuple(tuple(arrival) for arrival in arrivals if arrival))


def written(event: Event, spelling: int) -> str:
    """Return an event as a CSV line, in one of three spellings that mean the same event."""
    time = (
        f"{event.time:%Y-%m-%d %H:%M:%S} UTC",
        f"{event.time + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00",
        str((event.time - datetime(1970, 1, 1)) // timedelta(seconds=1)),
    )[spelling % 3]
    prices = ("", "", "") if event.price is None else (f"{event.price}", f"{event.price}0", f"{event.price:g}")
    texts = [event.category_id, event.category, event.brand]
    optional = ["" if text is None else f" {text} " if spelling == 2 else str(text) for text in texts]
    fields = [time, event.kind, event.product, *optional, prices[spelling % 3], event.user, event.session or ""]
    return ",".join(map(str, fields))
