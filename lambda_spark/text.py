"""Plain text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_WIDEST = 120
"""Characters of a cell; what is longer is cut."""


def clean(text: str) -> str:
    """A line without control characters, which could move a terminal's cursor, hide what was printed, or begin a line
    of their own."""
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def shown(rows: DataFrame, most: int) -> str:
    """Up to so many rows as Spark shows them, without control characters, of which Spark leaves some."""
    # Line ends within a cell Spark writes as such.
    lines = rows._show_string(most, truncate=False).split("\n")  # type: ignore[operator]
    return "\n".join(map(clean, lines))


def table(rows: Sequence[Mapping[str, Any]], formats: Mapping[str, str] | None = None) -> str:
    """Rows as aligned columns, texts left and numbers right, each by its column's format (like `.2f`); null is `-`."""
    formats = formats or {}

    def cell(name: str, value: Any) -> str:
        text = "-" if value is None else clean(format(value, formats[name]) if name in formats else str(value))
        return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"

    columns = []
    for name in rows[0] if rows else ():
        cells = [name, *(cell(name, row[name]) for row in rows)]
        align = str.ljust if any(isinstance(row[name], str) for row in rows) else str.rjust
        columns.append([align(text, max(map(len, cells))) for text in cells])
    return "\n".join(" ".join(line).rstrip() for line in zip(*columns, strict=True))
