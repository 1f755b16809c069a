"""Product and user ids: whole numbers or texts. All ids of a lake are of one kind, which the table `events` records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lambda_spark.errors import UsageError

Ids = Literal["integer", "text"]
"""The kind of a lake's ids: whole numbers above 0, or texts exactly as the store writes them."""
Id = int | str
"""A product or user id. All ids of a lake have the same Python type."""

ID_TYPES: dict[Ids, str] = {"integer": "bigint", "text": "string"}
"""Spark SQL type of the id columns, by the kind of the lake's ids."""
WORDS: dict[Ids, str] = {"integer": "whole numbers", "text": "texts"}
"""Words for each kind of ids in messages."""

IDS = "ids"
"""Property of the table `events` that records the kind of the lake's ids.

Lakes of earlier versions lack the property. Their ids are whole numbers.
"""


def ids_in(properties: Mapping[str, str]) -> Ids:
    """Return the kind of a lake's ids from the properties of the table `events`."""
    return "text" if properties.get(IDS) == "text" else "integer"


def whole_basket(ids: Ids) -> Id:
    """Return the id that stands for the basket itself in `co_interactions`. No product has this id."""
    return 0 if ids == "integer" else ""


def parse_id(text: str, ids: Ids) -> Id | None:
    """Convert a text to an id.

    Args:
        text: The id as a person wrote it. Spaces around it are ignored, as in an event.
        ids: The kind of the lake's ids.

    Returns:
        The id; None where the text is empty, or is no whole number above 0 that fits into 64 bits.
    """
    text = text.strip(" ")
    if ids == "text":
        return text or None
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 2**63 else None


def user_id(text: str, ids: Ids) -> Id:
    """Convert a text of the command line to a user id.

    Raises:
        UsageError: The text is no id of this kind.
    """
    parsed = parse_id(text, ids)
    if parsed is None:
        rule = "a whole number above 0" if ids == "integer" else "a text that is not empty"
        raise UsageError(f"a user id of this lake is {rule}, not '{text}'")
    return parsed
