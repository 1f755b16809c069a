"""Makes the sessions of the store, in which visitors come, look around, and sometimes buy.

    weights of the day ─► visitors of the day ─► sessions ─► products, event types, times

A session stays in one category, mostly in one family of products, and may once move on to any other product of
the store. After a product of a planted pair, the next product is often its partner. Some views are followed by a cart
or a purchase event of the same product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from lambda_spark.synthetic.catalogue import Catalogue
from lambda_spark.synthetic.model import ONE_OFFS, Chunk, Floats, Ints, StoreSettings, Stream
from lambda_spark.synthetic.planted_trends import PlantedPair, Plants, weights_on

EVENT_TYPES = ("view", "cart", "remove_from_cart", "purchase")
VIEW, CART, REMOVE, PURCHASE = range(4)

HOURS = (
    67, 90, 190, 320, 450, 500, 545, 535, 555, 560, 550, 520,
    520, 600, 650, 655, 660, 640, 500, 350, 235, 125, 85, 60,
)  # fmt: skip
"""Relative traffic of the store in each hour of the day (UTC), with peaks in the morning and the early evening."""
MAX_LENGTH, MAX_GAP = 120, 600
"""Largest number of events in a session, and largest number of seconds between two events of a session.

The two numbers multiplied give less than the seconds of a day. So every session fits into one day.
"""
FAVOURITES = (0.6, 0.25)
"""Shares of a regular user's sessions that begin in the user's first and second favourite category.

The user's other sessions begin in any category.
"""
STAY = 0.32
"""Chance that the next event of a session is about the same product, as after a reload of the page."""
FAMILY = 0.6
"""Chance that the next product of a session comes from the same family. Otherwise it comes from the whole category."""
DRIFT = 0.15
"""Chance that a session moves on to a product of any category. A session may end before it moves on."""
FOLLOW = 0.5
"""Chance that a session goes from one product of a planted pair directly to the other product of the pair."""
BUY_BOTH = 0.8
"""Chance that a session buys both products of a planted pair that is bought together.

Only sessions of at least four events that begin with one of the two products can do so.
"""

FUNNEL: tuple[tuple[float, tuple[int, ...]], ...] = (
    (0.0300, (CART,)),
    (0.0200, (CART, PURCHASE)),
    (0.0090, (PURCHASE,)),
    (0.0050, (CART, REMOVE)),
)
"""Rows of a probability and event types. With this probability, these events follow an event for the same product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Events as columns of numbers, without texts.

    Texts need by far the most memory. So only the delivery of the events adds them.
    """

    second: Ints
    """Time of each event, in seconds since 1970."""
    kind: npt.NDArray[np.int8]
    """Index of each event's type in EVENT_TYPES."""
    product: Ints
    """Index of each event's product in the catalogue."""
    cents: Ints
    user: Ints
    """Index of each event's user in `Visitors`."""
    session: Ints
    """Number of each event's session. No two sessions of the store have the same number."""

    def __len__(self) -> int:
        return len(self.second)

    def take(self, index: Ints) -> Events:
        """Return the events with the given indices, in the order of the indices."""
        return Events(
            second=self.second[index], kind=self.kind[index], product=self.product[index], cents=self.cents[index],
            user=self.user[index], session=self.session[index],
        )  # fmt: skip


def joined(parts: Sequence[Events]) -> Events:
    """Concatenate several `Events` into one."""
    if len(parts) == 1:
        return parts[0]
    return Events(
        second=np.concatenate([part.second for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
        product=np.concatenate([part.product for part in parts]),
        cents=np.concatenate([part.cents for part in parts]),
        user=np.concatenate([part.user for part in parts]),
        session=np.concatenate([part.session for part in parts]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitors:
    """All users of the store.

    The first indices belong to the regulars, who can come often. Users with only one visit follow, in the order of
    their visits.
    """

    user_id: Ints
    """Id of each user."""
    activity: Floats
    """Relative frequency of each regular user's visits. A few regulars come far more often than most."""
    favourites: Ints
    """Favourite categories of each regular user: the first favourites in one row, the second favourites in another."""
    joins: Ints
    """Index of the day from which each regular user comes to the store.

    Half of the regulars come from day 0 on, as if they knew the store before.
    """
    leaves: Ints
    """Index of the day from which each regular user no longer comes to the store."""


def visitors(settings: StoreSettings, goods: Catalogue, plan: Sequence[Chunk]) -> Visitors:
    """Make up the users of the store. Users who come later have higher ids, because stores number accounts in order."""
    rng = settings.random(Stream.VISITORS)
    users = settings.user_count
    regulars = users - int(ONE_OFFS * users)
    joins = np.where(rng.random(regulars) < 0.5, 0, rng.integers(0, settings.days, regulars))
    leaves = np.where(rng.random(regulars) < 0.7, settings.days, rng.integers(joins + 1, settings.days + 1))
    pull = np.cumsum(goods.usual)
    favourites = np.searchsorted(pull[:-1], rng.random((2, regulars)), side="right")
    visit = np.repeat([chunk.day for chunk in plan], [chunk.one_offs[1] - chunk.one_offs[0] for chunk in plan])
    number = np.empty(users, np.int64)
    number[np.lexsort((rng.random(users), np.concatenate([joins, visit])))] = np.arange(users)
    step = max(1, 48_000_000 // users)
    return Visitors(
        user_id=512_000_000 + number * step + rng.integers(0, step, users),
        activity=np.exp(0.9 * rng.standard_normal(regulars)),
        favourites=favourites,
        joins=joins,
        leaves=leaves,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Demand, visitors and prices of the store on one day."""

    begin: int
    """Midnight (UTC) at the begin of the day, in seconds since 1970."""
    mass: Floats
    """Cumulative weights of the products, from 0 on. A product's weight is the day's demand for the product."""
    appeal: Floats
    """Demand for each category on this day, as a multiple of the category's usual demand."""
    regulars: Floats
    """Cumulative weights of the regular users. The chance that a regular visits is in proportion to the weight."""
    cents: Ints
    """Price of each product on this day, in cents."""


def day_of(index: int, settings: StoreSettings, goods: Catalogue, planted: Plants, everyone: Visitors) -> Day:
    """Compute the demand, the visitors and the prices of one day.

    Regular users come more often while their favourite categories are in demand. So when the demand for a category
    changes, regulars and other visitors change their demand by the same factor.
    """
    weight = weights_on(index, goods, planted)
    usual = goods.usual
    appeal = np.bincount(goods.category, weight) / usual
    here = (everyone.joins <= index) & (index < everyone.leaves)
    wish = _wishes(everyone.favourites, appeal, usual).sum(axis=0)
    # Reduce the prices of one product in twenty by ten or twenty percent. The reduced price is valid for a whole week.
    rng = settings.random(Stream.PRICES, index // 7)
    off = np.where(rng.random(len(weight)) < 0.05, rng.integers(1, 3, len(weight)) * 10, 0)
    midnight = datetime.combine(settings.day(index), datetime.min.time(), UTC)
    return Day(
        begin=int(midnight.timestamp()),
        mass=np.concatenate([[0.0], np.cumsum(weight)]),
        appeal=appeal,
        regulars=np.cumsum(everyone.activity * here * wish),
        cents=goods.cents * (100 - off) // 100,
    )


def _wishes(favourites: Ints, appeal: Floats, usual: Floats) -> Floats:
    """Compute each regular user's demand for the first favourite category, the second favourite, and any category.

    Returns:
        Three rows, with a column for each regular user.
    """
    first, second = FAVOURITES
    anything = np.full(favourites.shape[1], (1 - first - second) * float(appeal @ usual))
    return np.stack([first * appeal[favourites[0]], second * appeal[favourites[1]], anything])


def draw(mass: Floats, begin: Ints, end: Ints, chance: Floats) -> Ints:
    """Draw one product from each range of products, in proportion to the weights.

    Args:
        mass: Cumulative weights of the products, from 0 on.
        begin: Index of the first product in each range.
        end: Index after the last product in each range.
        chance: A random number for each range, uniform in [0, 1).

    Returns:
        The index of the drawn product for each range.
    """
    low = mass[begin]
    drawn: Ints = np.searchsorted(mass, low + chance * (mass[end] - low), side="right") - 1
    return np.minimum(np.maximum(drawn, begin), end - 1)


def session_lengths(events: int, rng: np.random.Generator) -> Ints:
    """Draw the number of events of each session, until all sessions together have the given number of events.

    Half of the sessions have one or two events. One session in a hundred has more than twenty events.
    """
    # Draw one session for every three events, which is enough because a session has 3.8 events on average. Draw 60 more
    # sessions for safety on days with few events.
    lengths = np.ceil(2.0 * np.exp(rng.standard_normal(events // 3 + 60))).astype(np.int64)
    lengths = np.minimum(lengths, MAX_LENGTH)
    ends = np.cumsum(lengths)
    last = int(np.searchsorted(ends, events))
    lengths = lengths[: last + 1]
    lengths[-1] -= ends[last] - events
    return lengths


def sessions(
    chunk: Chunk, day: Day, goods: Catalogue, planted: Plants, everyone: Visitors, rng: np.random.Generator
) -> Events:
    """Make the events of all sessions that begin in a chunk (a day or part of a day), session by session."""
    length = session_lengths(chunk.events, rng)
    n, first = len(length), np.cumsum(length) - length
    session = np.repeat(np.arange(n), length)
    step = np.arange(chunk.events) - first[session]

    user, category = _who_and_where(chunk, day, goods, everyone, n, rng)
    # Find the range of products in each category. A last range covers all products, so that category -1 stands for the
    # whole store.
    bounds = np.searchsorted(goods.category, np.arange(len(goods.category_id) + 1))
    begins, ends = np.append(bounds[:-1], 0), np.append(bounds[1:], bounds[-1])

    # Give each session a theme, which is a product whose category and family the session browses. Some sessions move on
    # to a second theme.
    anchor = draw(day.mass, begins[category], ends[category], rng.random(n))
    anywhere = draw(day.mass, np.full(n, begins[-1]), np.full(n, ends[-1]), rng.random(n))
    turn = np.where(rng.random(n) < DRIFT, 1 + (rng.random(n) * (length + 1)).astype(np.int64), MAX_LENGTH)
    drifted = step >= turn[session]
    theme = np.where(drifted, anywhere[session], anchor[session])

    kind, moves = _funnel(step, length[session], rng)
    product = _browse(day, goods, planted, theme, moves, (step == 0) | (step == turn[session]), rng)
    bought_with = _partners([pair for pair in planted.pairs if pair.bought], len(goods.weight))
    _buy_pairs(bought_with, anchor, length, first, product, kind, rng)

    return Events(
        second=day.begin + _times(chunk, length, first, session, rng),
        kind=kind,
        product=product,
        cents=day.cents[product],
        user=user[session],
        session=(chunk.index << 32) + session,
    )


def _who_and_where(
    chunk: Chunk, day: Day, goods: Catalogue, everyone: Visitors, n: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Draw the user of each session and the category in which the session begins.

    Users with only one visit come first in the result. Category -1 stands for the whole store.
    """
    new = np.arange(*chunk.one_offs)[:n]
    regular = np.searchsorted(day.regulars[:-1], rng.random(n - len(new)) * day.regulars[-1], side="right")
    favourites = everyone.favourites[:, regular]
    wishes = np.cumsum(_wishes(favourites, day.appeal, goods.usual), axis=0)
    mood = rng.random(len(regular)) * wishes[2]
    category = np.where(mood < wishes[0], favourites[0], np.where(mood < wishes[1], favourites[1], -1))
    return np.concatenate([new, regular]), np.concatenate([np.full(len(new), -1), category])


def _funnel(step: Ints, length: Ints, rng: np.random.Generator) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Draw the type of each event, and whether the event moves on to a new product."""
    n = len(step)
    kind = np.zeros(n, np.int8)
    moves = rng.random(n) >= STAY
    chance = rng.random(n)
    rates = np.cumsum([rate for rate, _ in FUNNEL])
    at = np.flatnonzero(chance < rates[-1])
    at = at[np.diff(at, prepend=-3) > 2]  # let the event types of one row of FUNNEL end before another row begins
    path = np.searchsorted(rates, chance[at], side="right")
    for number, (_, kinds) in enumerate(FUNNEL):
        for offset, following in enumerate(kinds, start=1):
            events = at[path == number]
            events = events[step[events] + offset < length[events]] + offset
            kind[events] = following
            moves[events] = False
    return kind, moves


def _browse(
    day: Day,
    goods: Catalogue,
    planted: Plants,
    theme: Ints,
    moves: npt.NDArray[np.bool_],
    begins: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> Ints:
    """Draw the product of each event in all sessions.

    A session begins with the product that is its theme. Then other products of the same family or category follow.
    """
    at = np.flatnonzero(moves | begins)
    starts = begins[at]
    shown = theme[at]
    nexts = np.flatnonzero(~starts)
    near, far = goods.family_range[:, shown[nexts]], goods.category_range[:, shown[nexts]]
    within = np.where(rng.random(len(nexts)) < FAMILY, near, far)
    shown[nexts] = draw(day.mass, within[0], within[1], rng.random(len(nexts)))

    partner = _partners(planted.pairs, len(goods.weight))
    follows = np.flatnonzero(partner[shown[:-1]] >= 0) + 1
    follows = follows[~starts[follows] & (rng.random(len(follows)) < FOLLOW)]
    # Replace no two products in a row by their partners. The second partner would belong to a product that is itself
    # replaced.
    follows = follows[np.diff(follows, prepend=-2) > 1]
    shown[follows] = partner[shown[follows - 1]]
    return np.repeat(shown, np.diff(at, append=len(theme)))


def _partners(pairs: Sequence[PlantedPair], products: int) -> Ints:
    """Find the index of each product's partner in the planted pairs. A product without a partner gets -1."""
    partner = np.full(products, -1)
    for pair in pairs:
        partner[[pair.a, pair.b]] = pair.b, pair.a
    return partner


def _buy_pairs(
    partner: Ints,
    anchor: Ints,
    length: Ints,
    first: Ints,
    product: Ints,
    kind: npt.NDArray[np.int8],
    rng: np.random.Generator,
) -> None:
    """Let sessions view and then buy both products of a planted pair that is bought together.

    This can happen in sessions that begin with one of the two products and have at least four events.
    """
    chosen = np.flatnonzero((partner[anchor] >= 0) & (length >= 4))
    chosen = chosen[rng.random(len(chosen)) < BUY_BOTH]
    begin, a, b = first[chosen], anchor[chosen], partner[anchor[chosen]]
    for offset, (bought, event) in enumerate(((a, VIEW), (b, VIEW), (a, PURCHASE), (b, PURCHASE))):
        product[begin + offset] = bought
        kind[begin + offset] = event


def _times(chunk: Chunk, length: Ints, first: Ints, session: Ints, rng: np.random.Generator) -> Ints:
    """Draw the time of each event, in seconds since midnight.

    More sessions begin in hours with more traffic. About half a minute goes by between two events of a session.
    """
    low, high = chunk.stretch
    traffic = np.concatenate([[0.0], np.cumsum(HOURS)]) / sum(HOURS)
    begin = np.interp(low + (high - low) * rng.random(len(length)), traffic, np.arange(25) * 3600.0).astype(np.int64)
    gaps = np.clip(30 * np.exp(0.95 * rng.standard_normal(len(session), np.float32)), 1, MAX_GAP).astype(np.int64)
    elapsed = np.cumsum(gaps)
    # Let a session begin earlier if it would last past midnight. So all events of the session are on the same day.
    duration = elapsed[first + length - 1] - elapsed[first]
    begin = np.minimum(begin, 86_399 - duration)
    seconds: Ints = (begin - elapsed[first])[session] + elapsed
    return seconds
