"""Tests that a reason's template gives the same text with Python values as with Spark columns."""

import pytest
from pyspark.sql import functions as F

from lambda_spark.serving import reasons

WHEN = "in the week from 2019-11-04"
PLACE = " in c.1, where you looked"

FILLED = [
    (reasons.BECAUSE, {"word": "put into the cart", "product_id": 10}, "because you put into the cart 10"),
    (
        reasons.RISING,
        {"rising": "rising", "place": PLACE, "previous": 5, "current": 30, "when": WHEN},
        f"rising in c.1, where you looked: 5 → 30 views {WHEN}",
    ),
    (
        reasons.RISING,
        {"rising": "rising in share", "place": "", "previous": 44, "current": 36, "when": WHEN},
        f"rising in share: 44 → 36 views {WHEN}",
    ),
    (
        reasons.BECAUSE_AND_RISING,
        {"because": "because you viewed 10", "rising": f"rising: 10 → 31 views {WHEN}"},
        f"because you viewed 10; rising: 10 → 31 views {WHEN}",
    ),
    (
        reasons.IN_DEMAND,
        {"place": PLACE, "events": 8, "since": "since 2019-09-23"},
        "in demand in c.1, where you looked: 8 interactions since 2019-09-23",
    ),
    (reasons.IN_CATEGORY, {"category": "the category"}, " in the category, where you looked"),
]


@pytest.mark.parametrize(("template", "values", "text"), FILLED)
def test_a_template_is_filled_with_values(template, values, text):
    assert template.format(**values) == text


def test_a_template_filled_with_columns_gives_the_same_text(spark):
    columns = [
        reasons.as_column(template, **{name: F.lit(value) for name, value in values.items()})
        for template, values, _ in FILLED
    ]
    assert list(spark.range(1).select(*columns).collect()[0]) == [text for _, _, text in FILLED]


def test_a_template_is_null_where_one_of_its_columns_is_null(spark):
    columns = [
        reasons.as_column(template, **{name: F.lit(None if name == null else value) for name, value in values.items()})
        for template, values, _ in FILLED
        for null in values
    ]
    assert set(spark.range(1).select(*columns).collect()[0]) == {None}
