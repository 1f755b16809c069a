"""Formats tables and other text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_MAX_CELL_WIDTH = 120
"""Maximum number of characters in a cell of a printed table. Longer text is cut."""


def strip_control_characters(text: str) -> str:
    r"""Replace control characters by their hex code, like `\x1b`.

    Control characters could move the terminal's cursor, hide printed text, or begin a new line.
    """
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def shown(rows: DataFrame, most: int) -> str:
    """Format the rows of a DataFrame as Spark's `show` does, with control characters replaced by hex codes.

    Args:
        rows: The rows.
        most: The maximum number of rows to format.
    """
    # Split at `\n` only, because Spark escapes a `\n` inside a cell. Each part is then one line of the table.
    lines = rows._show_string(most, truncate=False).split("\n")  # type: ignore[operator]
    return "\n".join(map(strip_control_characters, lines))


def table(rows: Sequence[Mapping[str, Any]], formats: Mapping[str, str] | None = None) -> str:
    """Format rows as a text table. Texts are aligned left, numbers are aligned right, and null is `-`.

    Args:
        rows: The rows, each with the same columns.
        formats: Python format specifications like `.2f`, by column name. Other columns are printed as they are.

    Returns:
        Lines of text, of which the first has the column names. Without rows, an empty text.
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
