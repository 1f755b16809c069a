"""Plain text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame


def clean(text: str) -> str:
    """A text without control characters, which could move a terminal's cursor or hide what was printed."""
    return "".join(
        character if character.isprintable() or character == "\n" else f"\\x{ord(character):02x}" for character in text
    )


def shown(rows: DataFrame, most: int) -> str:
    """Up to so many rows as Spark shows them, without control characters, of which Spark leaves some."""
    return clean(rows._show_string(most, truncate=False))  # type: ignore[operator]


def table(rows: Sequence[Mapping[str, Any]], formats: Mapping[str, str] | None = None) -> str:
    """Rows as aligned columns, each value by its column's format (like `.2f`); null is `-`."""
    formats = formats or {}

    def shown(name: str, value: Any) -> str:
        return "-" if value is None else clean(format(value, formats.get(name, "")) if name in formats else str(value))

    frame = pd.DataFrame([{name: shown(name, value) for name, value in row.items()} for row in rows])
    for name in frame:
        if any(isinstance(row[name], str) for row in rows):
            frame[name] = frame[name].str.ljust(frame[name].str.len().max())
    return str(frame.to_string(index=False, justify="left", max_colwidth=120))
