"""What happens in the store: visitors come, look around, and sometimes buy.

    weights of the day ─► who comes ─► sessions ─► products, event types, times

A session keeps to a category, mostly to a family in it, and may move on once. After a product with a planted partner
the next product is often that partner. Some views are followed by a cart or a purchase of the same product.
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
"""Relative traffic by hour of the day (UTC): a morning, an early evening and a quiet night."""
MAX_LENGTH, MAX_GAP = 120, 600
"""Most events in a session, most seconds between two: their product is less than a day, so a session fits into one."""
FAVOURITES = (0.6, 0.25)  # sessions of a regular in the first and second favourite category; the rest anywhere
STAY = 0.32  # the same product once more (a reload, the photos)
FAMILY = 0.6  # a next product from the same family; otherwise from the whole category
DRIFT = 0.15  # sessions that move on to something else, if they are long enough
FOLLOW = 0.5  # the next product after one with a planted partner is that partner
BUY_BOTH = 0.8  # sessions that begin with a product bought in pairs, and are long enough, buy the pair

FUNNEL: tuple[tuple[float, tuple[int, ...]], ...] = (
    (0.0300, (CART,)),
    (0.0200, (CART, PURCHASE)),
    (0.0090, (PURCHASE,)),
    (0.0050, (CART, REMOVE)),
)
"""What an event may be followed by, for the same product: the chance, and the event types that come next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Events as columns of numbers. Text comes last, as it is by far the heaviest."""

    second: Ints
    """Since 1970."""
    kind: npt.NDArray[np.int8]
    product: Ints
    cents: Ints
    user: Ints
    session: Ints
    """A number that no other session has."""

    def __len__(self) -> int:
        return len(self.second)

    def take(self, index: Ints) -> Events:
        """These rows, in this order."""
        return Events(
            second=self.second[index], kind=self.kind[index], product=self.product[index], cents=self.cents[index],
            user=self.user[index], session=self.session[index],
        )  # fmt: skip


def joined(parts: Sequence[Events]) -> Events:
    """Several lots of events as one."""
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
    """Everyone who ever comes. The regulars are first by index, then the one-offs in the order of their visits."""

    user_id: Ints
    activity: Floats
    """How often a regular comes, relative to the others: a long tail."""
    favourites: Ints
    """Two rows: each regular's first and second favourite category."""
    joins: Ints
    """Each regular's first day. Half of them know the store from before."""
    leaves: Ints
    """The day from which a regular no longer comes."""


def visitors(settings: StoreSettings, goods: Catalogue, plan: Sequence[Chunk]) -> Visitors:
    """Make up the users. A later user has a higher id, as accounts are numbered."""
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
    """What holds for all sessions of a day."""

    begin: int
    """Midnight, in seconds since 1970."""
    mass: Floats
    """Cumulated weights of the products, from 0."""
    appeal: Floats
    """By category, how its demand today compares with the usual."""
    regulars: Floats
    """Cumulated chances that it is this regular who comes."""
    cents: Ints
    """Today's prices."""


def day_of(index: int, settings: StoreSettings, goods: Catalogue, planted: Plants, who: Visitors) -> Day:
    """Work out a day's demand.

    Regulars come more often while what they like is in demand, so that the demand for a category follows its weight
    whoever asks for it.
    """
    weight = weights_on(index, goods, planted)
    usual = goods.usual
    appeal = np.bincount(goods.category, weight) / usual
    here = (who.joins <= index) & (index < who.leaves)
    wish = _wishes(who.favourites, appeal, usual).sum(axis=0)
    # One product in twenty is on offer in a week, at ten or twenty percent off.
    rng = settings.random(Stream.PRICES, index // 7)
    off = np.where(rng.random(len(weight)) < 0.05, rng.integers(1, 3, len(weight)) * 10, 0)
    midnight = datetime.combine(settings.day(index), datetime.min.time(), UTC)
    return Day(
        begin=int(midnight.timestamp()),
        mass=np.concatenate([[0.0], np.cumsum(weight)]),
        appeal=appeal,
        regulars=np.cumsum(who.activity * here * wish),
        cents=goods.cents * (100 - off) // 100,
    )


def _wishes(favourites: Ints, appeal: Floats, usual: Floats) -> Floats:
    """How much a regular wants the first favourite, the second, and anything at all: three rows."""
    first, second = FAVOURITES
    anything = np.full(favourites.shape[1], (1 - first - second) * float(appeal @ usual))
    return np.stack([first * appeal[favourites[0]], second * appeal[favourites[1]], anything])


def draw(mass: Floats, begin: Ints, end: Ints, chance: Floats) -> Ints:
    """A product from each range, in proportion to the weights; chance is uniform in [0, 1)."""
    low = mass[begin]
    found: Ints = np.searchsorted(mass, low + chance * (mass[end] - low), side="right") - 1
    return np.minimum(np.maximum(found, begin), end - 1)


def session_lengths(events: int, rng: np.random.Generator) -> Ints:
    """Lengths that add up to so many events: half the sessions have one or two, one in a hundred more than twenty."""
    # The mean is 3.8, so a third as many sessions as events are enough but for the smallest of days.
    lengths = np.ceil(2.0 * np.exp(rng.standard_normal(events // 3 + 60))).astype(np.int64)
    lengths = np.minimum(lengths, MAX_LENGTH)
    ends = np.cumsum(lengths)
    last = int(np.searchsorted(ends, events))
    lengths = lengths[: last + 1]
    lengths[-1] -= ends[last] - events
    return lengths


def sessions(
    chunk: Chunk, day: Day, goods: Catalogue, planted: Plants, who: Visitors, rng: np.random.Generator
) -> Events:
    """All events of the sessions that begin in the chunk, session by session."""
    length = session_lengths(chunk.events, rng)
    n, first = len(length), np.cumsum(length) - length
    session = np.repeat(np.arange(n), length)
    step = np.arange(chunk.events) - first[session]

    user, category = _who_and_where(chunk, day, goods, who, n, rng)
    # Where each category begins and ends among the products; last, and so at -1, the whole store.
    bounds = np.searchsorted(goods.category, np.arange(len(goods.category_id) + 1))
    begins, ends = np.append(bounds[:-1], 0), np.append(bounds[1:], bounds[-1])

    # A session has one theme, or two if it drifts: the product it starts with says which category and family.
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
    chunk: Chunk, day: Day, goods: Catalogue, who: Visitors, n: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Who comes, by index, and the category each wants, or -1: one-offs first, then regulars."""
    new = np.arange(*chunk.one_offs)[:n]
    regular = np.searchsorted(day.regulars[:-1], rng.random(n - len(new)) * day.regulars[-1], side="right")
    favourites = who.favourites[:, regular]
    wishes = np.cumsum(_wishes(favourites, day.appeal, goods.usual), axis=0)
    mood = rng.random(len(regular)) * wishes[2]
    wanted = np.where(mood < wishes[0], favourites[0], np.where(mood < wishes[1], favourites[1], -1))
    return np.concatenate([new, regular]), np.concatenate([np.full(len(new), -1), wanted])


def _funnel(step: Ints, length: Ints, rng: np.random.Generator) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """The event types, and where a session moves on to another product rather than staying with the last."""
    n = len(step)
    kind = np.zeros(n, np.int8)
    moves = rng.random(n) >= STAY
    chance = rng.random(n)
    rates = np.cumsum([rate for rate, _ in FUNNEL])
    at = np.flatnonzero(chance < rates[-1])
    at = at[np.diff(at, prepend=-3) > 2]  # not in the midst of another
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
    """The product of each event. Where a theme begins it is the theme's own; then others of the family or category."""
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
    follows = follows[np.diff(follows, prepend=-2) > 1]  # after a product that is itself shown, not replaced
    shown[follows] = partner[shown[follows - 1]]
    return np.repeat(shown, np.diff(at, append=len(theme)))


def _partners(pairs: Sequence[PlantedPair], products: int) -> Ints:
    """For each product the one it belongs with, or -1."""
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
    """Rewrite sessions that begin with a product bought in pairs: see it, see its partner, buy one, buy the other."""
    chosen = np.flatnonzero((partner[anchor] >= 0) & (length >= 4))
    chosen = chosen[rng.random(len(chosen)) < BUY_BOTH]
    begin, one, other = first[chosen], anchor[chosen], partner[anchor[chosen]]
    for offset, (which, event) in enumerate(((one, VIEW), (other, VIEW), (one, PURCHASE), (other, PURCHASE))):
        product[begin + offset] = which
        kind[begin + offset] = event


def _times(chunk: Chunk, length: Ints, first: Ints, session: Ints, rng: np.random.Generator) -> Ints:
    """Seconds of the day: sessions begin by the hours' traffic, then half a minute or so goes by between two events."""
    low, high = chunk.stretch
    traffic = np.concatenate([[0.0], np.cumsum(HOURS)]) / sum(HOURS)
    begin = np.interp(low + (high - low) * rng.random(len(length)), traffic, np.arange(25) * 3600.0).astype(np.int64)
    gaps = np.clip(30 * np.exp(0.95 * rng.standard_normal(len(session), np.float32)), 1, MAX_GAP).astype(np.int64)
    gone = np.cumsum(gaps)
    # One that would go past midnight begins earlier, so that a day's events are all made in that day.
    lasts = gone[first + length - 1] - gone[first]
    begin = np.minimum(begin, 86_399 - lasts)
    seconds: Ints = (begin - gone[first])[session] + gone
    return seconds
