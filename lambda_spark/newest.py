"""Decides what the newest date of a store is, from the numbers of events per date.

One event with a wrong clock must not make all other events old. So the newest date is what many events say: a few
events beyond a long gap are set aside until they are no longer few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import DataFrame

LONGEST_GAP = timedelta(days=7)
"""Largest distance between neighbouring dates with events that is no gap.

A store's rhythm repeats every week. So a store that is closed on some weekdays, or open on only one, has no gap.
"""
FEW = 10
"""Dates after a gap hold few events if they hold less than 1 / FEW of the events of an average date before the gap.

A wrong clock is that of one record or one device, so it makes few events. The first day after a pause is a day of a
store, even if a slow one. A store with fewer than FEW events per date has no few events, because even a single event
is more than 1 / FEW of a date.
"""


@dataclass(frozen=True, slots=True)
class SetAside:
    """Summary of the events that are set aside."""

    events: int
    first: date
    """The oldest date of these events."""
    last: date
    """The newest date of these events."""
    days_after: int
    """Days from the newest date to `first`."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest date of a store, and the events that are set aside because they lie after it."""

    date: date | None
    """The newest date that counts. Events after it are set aside. None if the store has no events."""
    set_aside: SetAside | None = None
    """None if no events are set aside."""

    def to_note(self) -> dict[str, str | None]:
        """Return entries for a commit's note, from which `only_adds_to` tells later what has changed."""
        dates = {"newest_date": self.date, "set_aside_from": self.set_aside and self.set_aside.first}
        return {name: day.isoformat() if day else None for name, day in dates.items()}

    def only_adds_to(self, note: Mapping[str, str | None]) -> bool:
        """Whether all dates that counted then still count, and those that were set aside then still are.

        Args:
            note: What `to_note` returned then. Without its entries the answer is no.
        """
        if "newest_date" not in note:
            return False
        newest = self.date.isoformat() if self.date else ""
        first_set_aside = note["set_aside_from"]
        return (note["newest_date"] or "") <= newest and (first_set_aside is None or newest < first_set_aside)


def newest(events_on: Mapping[date, int]) -> Newest:
    """Find the newest date of a store.

    The dates with events form runs. Two neighbouring dates are in one run if they are at most LONGEST_GAP apart. As
    long as there are several runs, look at the last one. If it holds few events, set its dates aside, and go on with
    the runs that are left. Otherwise, or if one run is left, its last date is the newest date of the store. A run of n
    events holds few events if n · FEW · d < N, where d is the number of dates in the runs before it and N is the number
    of their events.

    The result depends only on the numbers of events, not on the order in which the events arrived. Each run is judged
    by itself. So many wrong clocks, each with a date of its own, are still set aside.

    Events that arrive or are deleted can move the newest date in both directions. Late events before a gap make the
    events after it few. Deleting events before a gap has the opposite effect.

    Args:
        events_on: The number of events of each date, at least 1. Dates without events are left out.
    """
    dates = sorted(events_on)
    kept = len(dates)
    while kept:
        start = _start_of_last_run(dates[:kept])
        total_before = sum(events_on[day] for day in dates[:start])
        if sum(events_on[day] for day in dates[start:kept]) * FEW * start >= total_before:
            break
        kept = start
    if kept == len(dates):
        return Newest(dates[-1] if dates else None)
    last_counted, aside = dates[kept - 1], dates[kept:]
    events = sum(events_on[day] for day in aside)
    return Newest(last_counted, SetAside(events, aside[0], aside[-1], (aside[0] - last_counted).days))


def _start_of_last_run(dates: list[date]) -> int:
    """Return the position of the first date of the last run."""
    start = len(dates) - 1
    while start > 0 and dates[start] - dates[start - 1] <= LONGEST_GAP:
        start -= 1
    return start


def newest_of(events: DataFrame) -> Newest:
    """Count events per date with a query, and find the newest date.

    For all events of a lake use `Lake.newest`, which reads no events.

    Args:
        events: Events, with the column event_date.
    """
    return newest({row.event_date: row["count"] for row in events.groupBy("event_date").count().collect()})
