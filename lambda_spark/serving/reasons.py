"""The texts that tell a user why a product is recommended.

Each text is a template. `str.format` fills a template with Python values, and `as_column` fills it with Spark columns.
"""

from __future__ import annotations

from string import Formatter

from pyspark.sql import Column
from pyspark.sql import functions as F

INTERACTION_WORDS = {"view": "viewed", "cart": "put into the cart", "purchase": "bought"}
"""The verb that a reason uses for each event type, from the weakest sign of interest to the strongest."""

BECAUSE = "because you {word} {product_id}"
"""Template for a product whose score comes from the user's profile. `word` is one of INTERACTION_WORDS."""
RISING = "{rising}{place}: {previous} → {current} views {when}"
"""Template for a product whose views rise. `rising` is MORE_VIEWS or MORE_SHARE, `place` is IN_CATEGORY or empty."""
BECAUSE_AND_RISING = "{because}; {rising}"
"""Template for a rising product whose score comes from the profile: joins a filled BECAUSE and a filled RISING."""
IN_DEMAND = "in demand{place}: {events} interactions {since}"
"""Template for a product that fills up a short list. `place` is IN_CATEGORY or empty."""
STILL_INTERESTED = "still interested?"
"""Reason for a product that the user's own profile holds."""

MORE_VIEWS = "rising"
"""Word for a rising product whose number of views grew."""
MORE_SHARE = "rising in share"
"""Word for a rising product whose share of all views grew, but not its number of views.

In a shrinking store a product can gain share while it loses views.
"""
IN_CATEGORY = " in {category}, where you looked"
"""Text for `place` in other templates, where the product fills up the list from a category of the user's profile."""
UNNAMED_CATEGORY = "the category"
"""Words for a category without a category code."""


def as_column(template: str, **values: Column) -> Column:
    """Fill a template with columns, as `str.format` does with Python values.

    Args:
        template: Text with placeholders like `{product_id}`, without format specifications.
        values: The column for each placeholder. It is cast to a string.

    Returns:
        A string column; null where a column of the template is null.
    """
    parts = []
    for text, name, _, _ in Formatter().parse(template):
        if text:
            parts.append(F.lit(text))
        if name is not None:
            parts.append(values[name].cast("string"))
    return F.concat(*parts)
