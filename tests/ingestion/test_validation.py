"""Tests of event validation, with examples of valid events and of every reason for a rejection."""

from datetime import date, datetime, timedelta

import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from lambda_spark.event_format import FIELDS
from lambda_spark.ingestion.validation import event_time, validate

GOOD = {
    "event_time": "2019-10-01 00:00:05 UTC",
    "event_type": "view",
    "product_id": "44600062",
    "category_id": "2103807459595387724",
    "category_code": "furniture.bedroom.bed",
    "brand": "shiseido",
    "price": "35.79",
    "user_id": "541312140",
    "user_session": "72d76fde",
}
CLOCK = datetime(2020, 1, 1)


def validated(spark, *rows, max_ahead=timedelta(minutes=10)):
    schema = ", ".join(f"{name} string" for name in FIELDS)
    lines = spark.createDataFrame([tuple({**GOOD, **row}[name] for name in FIELDS) for row in rows], schema)
    lines = lines.withColumns(
        {"flaw": F.lit(None).cast("string"), "ingested_at": F.lit("2020-01-01 00:00:00").cast("timestamp")}
    )
    return validate(lines, min_event_date=date(2010, 1, 1), max_ahead=max_ahead)


def test_a_good_line_becomes_a_typed_event(spark):
    event = validated(spark, {}).select(*FIELDS, "event_date", "reasons")
    expected = spark.sql(
        """select timestamp '2019-10-01 00:00:05' event_time, 'view' event_type, 44600062L product_id,
        2103807459595387724L category_id, 'furniture.bedroom.bed' category_code, 'shiseido' brand,
        cast('35.79' as decimal(12,2)) price, 541312140L user_id, '72d76fde' user_session,
        date '2019-10-01' event_date, cast(array() as array<string>) reasons"""
    )
    assert_df_equality(event, expected, ignore_nullable=True)


def test_optional_fields_may_be_empty_and_a_price_may_be_0(spark):
    empty = dict.fromkeys(("category_id", "category_code", "brand", "price", "user_session"), "")
    rows = validated(spark, empty, {"price": "0"}, {"brand": "  "}).select("reasons", "brand").collect()
    assert [row.reasons for row in rows] == [[], [], []]
    assert rows[2].brand is None


REJECTED = [
    ({"event_time": ""}, ["event_time is missing"]),
    ({"event_type": " "}, ["event_type is missing"]),
    ({"product_id": ""}, ["product_id is missing"]),
    ({"user_id": ""}, ["user_id is missing"]),
    ({"event_time": "2019-10-32 00:00:00 UTC"}, ["event_time is malformed"]),
    ({"event_time": "yesterday"}, ["event_time is malformed"]),
    ({"event_type": "like"}, ["event_type is unknown"]),
    ({"product_id": "12a"}, ["product_id is malformed"]),
    ({"product_id": "9223372036854775808"}, ["product_id is malformed"]),
    ({"product_id": "0"}, ["product_id is not above 0"]),
    ({"product_id": "-5"}, ["product_id is not above 0"]),
    ({"user_id": "0"}, ["user_id is not above 0"]),
    ({"user_id": "x"}, ["user_id is malformed"]),
    ({"category_id": "a.b"}, ["category_id is malformed"]),
    ({"price": "cheap"}, ["price is malformed"]),
    ({"price": "NaN"}, ["price is malformed"]),
    ({"price": "-0.01"}, ["price is below 0"]),
    ({"price": "99999999999.99"}, ["price is malformed"]),
    ({"event_time": "2009-12-31 23:59:59 UTC"}, ["event_time is before 2010-01-01"]),
    ({"event_time": "0001-01-01 00:00:00 UTC"}, ["event_time is before 2010-01-01"]),
    ({"event_time": "2020-01-01 00:10:01 UTC"}, ["event_time is in the future"]),
    ({"event_time": "9999-12-31 00:00:00 UTC"}, ["event_time is in the future"]),
    (
        {"event_type": "", "user_id": "-1", "price": "x"},
        ["event_type is missing", "price is malformed", "user_id is not above 0"],
    ),
]


def test_a_line_is_rejected_with_all_its_reasons(spark):
    rows = validated(spark, *(fields for fields, _ in REJECTED)).select("reasons").collect()
    assert [row.reasons for row in rows] == [reasons for _, reasons in REJECTED]


@pytest.mark.parametrize(
    ("minutes", "ahead", "beyond"),
    [
        (0, "2020-01-01 00:00:00 UTC", "2020-01-01 00:00:01 UTC"),
        (10, "2020-01-01 00:10:00 UTC", "2020-01-01 00:10:01 UTC"),
        (1440, "2020-01-02 00:00:00 UTC", "2020-01-02 00:00:01 UTC"),
    ],
)
def test_an_event_may_be_ahead_of_the_clock_as_far_as_the_setting_says(spark, minutes, ahead, beyond):
    events = validated(spark, {"event_time": ahead}, {"event_time": beyond}, max_ahead=timedelta(minutes=minutes))
    assert [row.reasons for row in events.select("reasons").collect()] == [[], ["event_time is in the future"]]


TIMES = [
    ("2019-10-01 00:00:00 UTC", "2019-10-01 00:00:00"),
    ("2019-10-01 00:00:00", "2019-10-01 00:00:00"),
    ("2019-10-01T12:30:00Z", "2019-10-01 12:30:00"),
    ("2019-10-01T12:30:00.123456+02:00", "2019-10-01 10:30:00.123456"),
    ("2019-10-01", "2019-10-01 00:00:00"),
    ("1569888000", "2019-10-01 00:00:00"),
    ("1569888000.5", "2019-10-01 00:00:00.5"),
    ("12:30:00", None),
    ("2019-10", None),
    ("1e300", None),
    ("99999999999999999999", None),
]


def test_times_without_a_zone_are_utc_and_times_without_a_whole_date_are_null(spark):
    rows = spark.createDataFrame(TIMES, "text string, moment string").withColumn(
        "parsed", event_time(F.col("text")).cast("string")
    )
    assert [(row.text, row.parsed) for row in rows.collect()] == TIMES


def test_the_event_id_is_the_same_for_the_same_event_and_no_other(spark):
    rows = validated(
        spark,
        {},
        {"brand": " shiseido "},
        {"price": "35.790"},
        {"event_time": "1569888005"},
        {"brand": ""},
        {"brand": "shiseid"},
        {"category_code": "", "brand": "ab"},
        {"category_code": "ab", "brand": ""},
        {"user_session": ""},
    ).collect()
    ids = [row.event_id for row in rows]
    assert len(set(ids[:4])) == 1, "the same event, written in four ways"
    assert len(set(ids)) == 6, "a different event has a different id"
    assert all(len(event_id) == 32 for event_id in ids)
