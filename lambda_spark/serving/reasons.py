"""The words of the reasons in a list, written once for Spark columns and for Python values.

A template is filled with Python values by `str.format`, and with Spark columns by `as_column`.
"""

from __future__ import annotations

from string import Formatter

from pyspark.sql import Column
from pyspark.sql import functions as F

INTERACTION_WORDS = {"view": "viewed", "cart": "put into the cart", "purchase": "bought"}
"""The word for each event type in a reason, from the weakest sign of interest to the strongest."""

BECAUSE = "because you {word} {product_id}"
"""Template for a product whose score comes from the user's profile. `word` is one of INTERACTION_WORDS."""
RISING = "{rising}{place}: {previous} → {current} views {when}"
"""Template for a product with a rising trend. `rising` is MORE_VIEWS or MORE_SHARE; `place` is IN_CATEGORY or empty."""
BECAUSE_AND_RISING = "{because}; {rising}"
"""Template for a scored product with a rising trend, from a filled BECAUSE and a filled RISING."""
IN_DEMAND = "in demand{place}: {events} interactions {since}"
"""Template for a product that fills up a list. `place` is IN_CATEGORY or empty."""
STILL_INTERESTED = "still interested?"
"""Reason for a product of the user's own profile."""

MORE_VIEWS = "rising"
"""Word for a rising trend of a product whose views grew."""
MORE_SHARE = "rising in share"
"""Word for a rising trend of a product whose views did not grow.

In a shrinking store a product can gain share while it loses views.
"""
IN_CATEGORY = " in {category}, where you looked"
"""Template for `place`, used for a product from a category of the user's profile."""
UNNAMED_CATEGORY = "the category"
"""Name of a category whose products have no category code."""


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
