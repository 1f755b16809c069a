"""Computes the expected contents of all tables in plain Python, without code of the project.

The functions follow the definitions of the design literally, so they are slow on purpose. They take events, or the
results of other functions in this module. Most functions return a dictionary from a row's key to the row's figures.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

SIGNALS = ("view", "cart", "purchase")


Id = int | str
"""A product or user id. All ids of a store are of one type."""


def basket_itself(of: Id) -> Id:
    """Return the id that stands for the basket itself, in a store with ids of the type of the given id."""
    return "" if isinstance(of, str) else 0


class Event(NamedTuple):
    """One event with typed fields.

    Two equal values are the same event, even if two files spell the event differently.
    """

    time: datetime
    kind: str
    product: Id
    category_id: int | None
    category: str | None
    brand: str | None
    price: Decimal | None
    user: Id
    session: str | None

    @property
    def date(self) -> date:
        return self.time.date()


def newest_date(events: Iterable[Event]) -> date:
    """Return the newest date with events, after few events beyond a gap of more than 7 days are set aside.

    A tail beyond a gap is few if it has less than a tenth of the average number of events per date before the gap.
    """
    per_date = Counter(event.date for event in events)
    days = sorted(per_date)
    for at in reversed(range(1, len(days))):
        if (days[at] - days[at - 1]).days > 7:
            average = Fraction(sum(per_date[day] for day in days[:at]), at)
            if sum(per_date[day] for day in days[at:]) >= average / 10:
                break
            days = days[:at]
    return days[-1]


def counted(events: Collection[Event]) -> list[Event]:
    """Return the events that are not set aside."""
    newest = newest_date(events)
    return [event for event in events if event.date <= newest]


def products(events: Collection[Event]) -> dict[Id, tuple[Any, ...]]:
    """Return each product's newest attributes that are not null, and when it was first and last seen.

    Events that are set aside are used only for products that have no other events.

    Returns:
        {product: (category_id, category, brand, price, first_seen, last_seen)}.
    """
    attributes = {}
    not_set_aside = counted(events)
    for product in {event.product for event in events}:
        own = [event for event in not_set_aside if event.product == product]
        own = own or [event for event in events if event.product == product]
        newest = []
        for name in ("category_id", "category", "brand", "price"):
            known = [(event.time, getattr(event, name)) for event in own if getattr(event, name) is not None]
            newest.append(max(known)[1] if known else None)
        times = [event.time for event in own]
        attributes[product] = (*newest, min(times), max(times))
    return attributes


def baskets(events: Iterable[Event]) -> dict[tuple[date, str, Id, str], dict[Id, datetime]]:
    """Return the baskets. A basket holds the products of one user, session and date, each with its first event's time.

    Returns:
        {(date, relation, user, session): {product: first time}}. The session of a `bought` basket is ''.
    """
    first_times: dict[tuple[date, str, Id, str], dict[Id, datetime]] = defaultdict(dict)
    for event in events:
        if event.kind not in SIGNALS:
            continue
        keys = [(event.date, "viewed", event.user, event.session or "")]
        if event.kind == "purchase":
            keys.append((event.date, "bought", event.user, ""))
        for key in keys:
            first_times[key][event.product] = min(event.time, first_times[key].get(event.product, event.time))
    return dict(first_times)


def co_interactions(all_baskets: dict[Any, dict[Id, datetime]], window: int) -> dict[Any, tuple[int, int]]:
    """Count the baskets in which two products are at most `window` positions apart, and sum the pair's strengths.

    Returns:
        {(date, relation, item_a, item_b): (baskets, strength in 1/60)}, with item_a ≤ item_b. The pair (a, a) counts
        the baskets with item a, and the pair (0, 0), or ('', '') of texts, counts all baskets.
    """
    together: Counter[Any] = Counter()
    strength: defaultdict[Any, Fraction] = defaultdict(Fraction)
    for (day, relation, _, _), items in all_baskets.items():
        order = [product for _, product in sorted((time, product) for product, time in items.items())]
        together[day, relation, basket_itself(order[0]), basket_itself(order[0])] += 1
        for place, item in enumerate(order):
            together[day, relation, item, item] += 1
            for steps, other in enumerate(order[place + 1 : place + 1 + window], start=1):
                key = (day, relation, min(item, other), max(item, other))
                together[key] += 1
                strength[key] += Fraction(60, steps)
    return {key: (count, int(strength[key])) for key, count in together.items()}


def similar_items(
    counts: dict[Any, tuple[int, int]], measure: str, *, newest: date, k: int, half_life: float, min_baskets: int
) -> dict[tuple[str, Id], list[tuple[Id, float, int, int]]]:
    """Return the `k` best neighbours of each product, the best first.

    Args:
        counts: The result of `co_interactions`.
        measure: `confidence` or `llr`.
        newest: The newest date. Later counts are left out.
        k: The largest number of neighbours per product.
        half_life: The days after which a date's counts weigh half as much; 0 for no decay.
        min_baskets: The smallest number of baskets for a pair.

    Returns:
        {(relation, product): [(similar product, score, baskets, strength), …]}; baskets and strength are not decayed.
    """
    decayed: Counter[Any] = Counter()
    decayed_strength: Counter[Any] = Counter()
    plain: Counter[Any] = Counter()
    plain_strength: Counter[Any] = Counter()
    for (day, *key), (count, strength) in counts.items():
        if day > newest:
            continue
        weight = 2**20 if half_life == 0 else math.floor(2**20 * 2 ** (-(newest - day).days / half_life) + 0.5)
        plain[tuple(key)] += count
        plain_strength[tuple(key)] += strength
        decayed[tuple(key)] += weight * count
        decayed_strength[tuple(key)] += weight * strength
    neighbours = defaultdict(list)
    for relation, a, b in plain:
        if a == b or plain[relation, a, b] < min_baskets:
            continue
        everything = decayed[relation, basket_itself(a), basket_itself(a)]
        for i, j in ((a, b), (b, a)):
            score = _score(
                measure,
                decayed_strength[relation, a, b] / 60,
                decayed[relation, i, i],
                decayed[relation, j, j],
                everything,
                decayed[relation, a, b],
            )
            if score > 0:
                pair = (relation, a, b)
                neighbours[relation, i].append((j, score, plain[pair], plain_strength[pair]))
    return {key: sorted(row, key=lambda entry: (-entry[1], entry[0]))[:k] for key, row in neighbours.items()}


def _score(measure: str, c: float, n_i: int, n_j: int, n: int, both: int) -> float:
    if measure == "confidence":
        return c / n_i
    assert measure == "llr"
    cells = {(1, 1): both, (1, 0): n_i - both, (0, 1): n_j - both, (0, 0): max(0, n - n_i - n_j + both)}
    k = {cell: count / 2**20 for cell, count in cells.items()}
    total = sum(k.values())
    row = {side: k[side, 0] + k[side, 1] for side in (0, 1)}
    column = {side: k[0, side] + k[1, side] for side in (0, 1)}
    if k[1, 1] * total <= row[1] * column[1]:
        return 0.0
    return 2 * sum(count * math.log(count * total / (row[r] * column[c])) for (r, c), count in k.items() if count > 0)


def bucket_of(moment: datetime, length: timedelta, origin: date) -> datetime:
    start = datetime(origin.year, origin.month, origin.day)
    return start + (moment - start) // length * length


def demand(events: Iterable[Event], length: timedelta, origin: date, key: str = "product") -> dict[Any, int]:
    """Count the events of each bucket, signal and key. Events without a value for the key are not counted.

    Returns:
        {(bucket, signal, key): events}.
    """
    return dict(
        Counter(
            (bucket_of(event.time, length, origin), event.kind, getattr(event, key))
            for event in events
            if event.kind in SIGNALS and getattr(event, key) is not None
        )
    )


class Trend(NamedTuple):
    """The figures of a trend, without those that need a statistical distribution. None stands for null."""

    current: int
    previous: int
    change: int
    growth: float
    z_score: float
    change_pct: float | None
    direction: str
    trend_pct: float | None
    rank: int | None
    complete: bool


def trends(
    events: Collection[Event], length: timedelta, origin: date, *, key: str, min_change: int, min_z: float
) -> dict[Any, Trend]:
    """Compute trends by comparing each bucket with the previous one, with no limit on false discoveries (max_fdr 1).

    The events must not include any that are set aside.

    Returns:
        {(bucket, signal, key): Trend}.
    """
    counts = Counter(demand(events, length, origin, key))
    totals: Counter[Any] = Counter()
    for event in events:
        totals[bucket_of(event.time, length, origin), event.kind] += 1
    times = [event.time for event in events]
    first, newest = (bucket_of(moment, length, origin) for moment in (min(times), max(times)))
    rows = {}
    keys = {
        (bucket + step * length, signal, name)
        for bucket, signal, name in counts
        for step in (0, 1)
        if first < bucket + step * length <= newest
    }
    for bucket, signal, name in keys:
        current, previous = counts[bucket, signal, name], counts[bucket - length, signal, name]
        change, n = current - previous, current + previous
        total, total_before = totals[bucket, signal], totals[bucket - length, signal]
        z = 0.0
        if total and total_before:
            p = total / (total + total_before)
            z = (current - n * p) / math.sqrt(n * p * (1 - p))
        moves = abs(change) >= min_change and abs(z) >= min_z
        direction = ("rising" if z > 0 else "waning") if moves else "steady"
        pct = 100 * change / previous if previous else None
        complete = bucket + length <= max(times)
        rows[bucket, signal, name] = Trend(
            current, previous, change, change / (n + 1), z, pct, direction, None, None, complete
        )
    moving = {name: row for name, row in rows.items() if row.direction != "steady"}
    for group in {(*name[:2], row.direction) for name, row in moving.items()}:
        same = [(name, row) for name, row in moving.items() if (*name[:2], row.direction) == group]
        same.sort(key=lambda pair: (-abs(pair[1].z_score), -abs(pair[1].change), pair[0][2]))
        all_change = sum(abs(row.change) for _, row in same)
        for rank, (name, row) in enumerate(same, start=1):
            rows[name] = row._replace(rank=rank, trend_pct=100 * abs(row.change) / all_change)
    return rows


def newest_in_two_buckets(
    events: Iterable[Event], length: timedelta, origin: date, attribute: str
) -> dict[tuple[datetime, Id], str]:
    """Return each product's newest non-null value of an attribute, from each bucket and its previous bucket.

    Returns:
        {(bucket, product): value}.
    """
    known: dict[tuple[datetime, Id], tuple[datetime, str]] = {}
    for event in events:
        value = getattr(event, attribute)
        if event.kind in SIGNALS and value is not None:
            start = bucket_of(event.time, length, origin)
            for bucket in (start, start + length):
                entry = (event.time, value)
                known[bucket, event.product] = max(entry, known.get((bucket, event.product), entry))
    return {name: value for name, (_, value) in known.items()}


def user_trends(
    events: Iterable[Event], product_trends: dict[Any, Trend], length: timedelta, origin: date
) -> dict[tuple[datetime, Id], tuple[int, float, float]]:
    """Return the percent of each user's interactions that were with rising and with waning products.

    Returns:
        {(bucket, user): (interactions, rising percent, waning percent)}, only for buckets that have trends.
    """
    compared = {bucket for bucket, _, _ in product_trends}
    directions = defaultdict(list)
    for event in events:
        bucket = bucket_of(event.time, length, origin)
        if event.kind in SIGNALS and bucket in compared:
            trend = product_trends.get((bucket, event.kind, event.product))
            directions[bucket, event.user].append(trend.direction if trend else "steady")
    return {
        name: (len(ways), 100 * ways.count("rising") / len(ways), 100 * ways.count("waning") / len(ways))
        for name, ways in directions.items()
    }


def scored_recommendations(
    events: Collection[Event],
    similar: dict[tuple[str, Id], list[tuple[Id, float, int, int]]],
    product_trends: dict[Any, Trend],
    *,
    k: int,
    profile_items: int,
    active_days: int,
    trend_weight: float,
) -> dict[Id, list[tuple[Id, float]]]:
    """Return the products with a score in each active user's list, the best first.

    The weight of a product in a user's profile halves with each position. A view weighs 1, a cart 2 and a purchase 3.

    Args:
        events: All events that are not set aside.
        similar: The result of `similar_items`.
        product_trends: The result of `trends` by product.
        k: The largest number of products in a list.
        profile_items: The largest number of products in a profile.
        active_days: A user counts as active with an interaction in the last `active_days` days.
        trend_weight: How strongly a product's growth changes its score.

    Returns:
        {user: [(product, score), …]}, with only those users who have a product with a score.
    """
    since = max(event.date for event in events) - timedelta(days=active_days - 1)
    views = {name: row for name, row in product_trends.items() if name[1] == "view"}
    buckets = {bucket for bucket, _, _ in product_trends}
    complete = {bucket for (bucket, _, _), row in product_trends.items() if row.complete}
    bucket = max(complete or buckets, default=None)
    growth = {name[2]: row.growth for name, row in views.items() if name[0] == bucket and row.direction != "steady"}
    lists = {}
    for user in {event.user for event in events}:
        own = [event for event in events if event.user == user and event.kind in SIGNALS]
        if not own or max(event.date for event in own) < since:
            continue
        latest = {product: max(e.time for e in own if e.product == product) for product in {e.product for e in own}}
        weights = {product: max(SIGNALS.index(e.kind) + 1 for e in own if e.product == product) for product in latest}
        profile = sorted(latest, key=lambda product: (-latest[product].replace(tzinfo=UTC).timestamp(), product))
        profile = profile[:profile_items]
        barred = {e.product for e in own if e.kind == "purchase"} | set(profile)
        points: Counter[int] = Counter()
        for position, item in enumerate(profile):
            for other, similarity, _, _ in similar.get(("viewed", item), []):
                points[other] += math.floor(weights[item] * 0.5**position * similarity * 1e9 + 0.5)
        scores = {
            product: point / 1e9 * (1 + trend_weight * growth.get(product, 0.0))
            for product, point in points.items()
            if point > 0 and product not in barred
        }
        lists[user] = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
    return {user: ranked for user, ranked in lists.items() if ranked}
