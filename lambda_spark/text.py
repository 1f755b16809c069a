"""Formats tables and other text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_MAX_CELL_WIDTH = 120
"""Maximum number of characters in a cell of a table; longer text is cut."""


def strip_control_characters(text: str) -> str:
    r"""Replace control characters by their hex code, like `\x1b`.

    Control characters could move the terminal's cursor, hide printed text, or begin a new line.
    """
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def shown(rows: DataFrame, most: int) -> str:
    """Format rows as Spark's `show` does, without control characters.

    Args:
        rows: The rows.
        most: The maximum number of rows to format.
    """
    # Split at `\n` only: Spark escapes a `\n` inside a cell, so each line here is one line of the table.
    lines = rows._show_string(most, truncate=False).split("\n")  # type: ignore[operator]
    return "\n".join(map(strip_control_characters, lines))


def table(rows: Sequence[Mapping[str, Any]], formats: Mapping[str, str] | None = None) -> str:
    """Format rows as aligned columns: texts to the left, numbers to the right, null as `-`.

    Args:
        rows: The rows, each with the same columns.
        formats: The format of some columns' values, like `.2f`.

    Returns:
        Lines, the first with the column names; empty without rows.
    """
    formats = formats or {}

    def cell(name: str, value: Any) -> str:
        text = (
            "-"
            if value is None
            else strip_control_characters(format(value, formats[name]) if name in formats else str(value))
        )
        return text if len(text) <= _MAX_CELL_WIDTH else f"{text[: _MAX_CELL_WIDTH - 1]}…"

    columns = []
    for name in rows[0] if rows else ():
        cells = [name, *(cell(name, row[name]) for row in rows)]
        align = str.ljust if any(isinstance(row[name], str) for row in rows) else str.rjust
        columns.append([align(text, max(map(len, cells))) for text in cells])
    return "\n".join(" ".join(line).rstrip() for line in zip(*columns, strict=True))
