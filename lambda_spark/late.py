"""What comes late: a delivery is mostly of new dates, and brings little to many old ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date


def dates_with_few(rows_on: Mapping[date, int], most: int) -> set[date]:
    """As many of the dates as have no more than so many rows together, those with the fewest first."""
    few: set[date] = set()
    total = 0
    for day, rows in sorted(rows_on.items(), key=lambda item: item[1]):
        total += rows
        if total > most:
            break
        few.add(day)
    return few
