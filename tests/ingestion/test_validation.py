"""Tests of event validation, with examples of valid events and of every reason for a rejection."""

from datetime import date, datetime, timedelta

import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from lambda_spark.event_format import FIELDS
from lambda_spark.ingestion.times import described_time
from lambda_spark.ingestion.validation import validate
from lambda_spark.source_description import DESCRIBED_FIELDS, REES46, SourceDescription

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


def validated(spark, *rows, max_ahead=timedelta(minutes=10), **description):
    schema = ", ".join(f"{name} string" for name in DESCRIBED_FIELDS)
    values = [tuple({**GOOD, "event_id": None, **row}[name] for name in DESCRIBED_FIELDS) for row in rows]
    lines = spark.createDataFrame(values, schema).withColumns(
        {
            "source": F.lit("file:/in.csv"),
            "flaw": F.lit(None).cast("string"),
            "position": F.lit(None).cast("int"),
            "ingested_at": F.lit("2020-01-01 00:00:00").cast("timestamp"),
        }
    )
    labels = {name: name for name in DESCRIBED_FIELDS}
    described = SourceDescription(**description)
    return validate(lines, described, labels, min_event_date=date(2010, 1, 1), max_ahead=max_ahead)


def test_a_good_line_becomes_a_typed_event(spark):
    event = validated(spark, {}).select(*FIELDS, "event_date", "reasons")
    expected = spark.sql(
        """select timestamp '2019-10-01 00:00:05' event_time, 'view' event_type, 44600062L product_id,
        '2103807459595387724' category_id, 'furniture.bedroom.bed' category_code, 'shiseido' brand,
        cast('35.79' as decimal(12,2)) price, 541312140L user_id, '72d76fde' user_session,
        date '2019-10-01' event_date, cast(array() as array<string>) reasons"""
    )
    assert_df_equality(event, expected, ignore_nullable=True)


def test_optional_fields_may_be_empty_and_a_price_may_be_0(spark):
    empty = dict.fromkeys(("category_id", "category_code", "brand", "price", "user_session"), "")
    rows = validated(spark, empty, {"price": "0"}, {"brand": "  "}).select("reasons", "brand").collect()
    assert [row.reasons for row in rows] == [[], [], []]
    assert rows[2].brand is None


AS_TEXT = 'Keep ids as written with source.ids = "text"'
NO_TIME = "is no time in seconds or in ISO 8601"
TOO_LONG = "9223372036854775808"
REJECTED = [
    ({"event_time": ""}, ["event_time is missing"]),
    ({"event_type": " "}, ["event_type is missing"]),
    ({"product_id": ""}, ["product_id is missing"]),
    ({"user_id": "NULL", "user_session": ""}, ["user_id is missing, and there is no session"]),
    ({"user_id": "0", "user_session": ""}, ['user_id "0" means nobody, and there is no session']),
    (
        {"event_time": "2019-10-32 00:00:00 UTC"},
        [f'event_time "2019-10-32 00:00:00 UTC" {NO_TIME}'],
    ),
    ({"event_time": "yesterday"}, [f'event_time "yesterday" {NO_TIME}']),
    ({"event_type": "like"}, ['event_type "like" is unknown: map it in source.event_types, or ignore it']),
    ({"product_id": "12a"}, [f'product_id "12a" is no whole number. {AS_TEXT}']),
    (
        {"product_id": "9223372036854775808"},
        [f'product_id "9223372036854775808" is no whole number of 64 bits. {AS_TEXT}'],
    ),
    ({"product_id": "0"}, ['product_id "0" is not above 0']),
    ({"product_id": "-5"}, ['product_id "-5" is not above 0']),
    ({"user_id": "x" * 50}, [f'user_id "{"x" * 40}…" is no whole number. {AS_TEXT}']),
    ({"event_time": "2009-12-31 23:59:59 UTC"}, ['event_time "2009-12-31 23:59:59 UTC" is before 2010-01-01']),
    ({"event_time": "2020-01-01 00:10:01 UTC"}, ['event_time "2020-01-01 00:10:01 UTC" is in the future']),
    ({"event_time": "1569888000000"}, ['event_time "1569888000000" is after 2100 as seconds']),
    (
        {"event_type": "", "user_id": "me", "price": "x"},
        ["event_type is missing", f'user_id "me" is no whole number. {AS_TEXT}'],
    ),
]


def test_a_record_is_rejected_with_all_its_reasons(spark):
    rows = validated(spark, *(fields for fields, _ in REJECTED)).select("reasons").collect()
    assert [row.reasons for row in rows] == [reasons for _, reasons in REJECTED]


def test_a_malformed_optional_field_is_null_and_costs_no_event(spark):
    bad = [{"price": "cheap"}, {"price": "-0.01"}, {"price": "99999999999.99", "category_id": "2.05301E+18"}]
    rows = (
        validated(spark, *bad, {"category_id": "a-7"})
        .select("price", "category_id", "nulled_fields", "reasons")
        .collect()
    )
    assert [row.reasons for row in rows] == [[], [], [], []]
    assert [row.nulled_fields for row in rows] == [*bad, None]
    assert [row.category_id for row in rows][2:] == [None, "a-7"]
    strict = validated(spark, *bad, strict=True).select("reasons").collect()
    assert [row.reasons for row in strict] == [
        ['price "cheap" is no price of at least 0'],
        ['price "-0.01" is no price of at least 0'],
        ['category_id "2.05301E+18" is a rounded number', 'price "99999999999.99" is no price of at least 0'],
    ]


def test_an_event_without_a_user_is_a_guests_if_it_has_a_session(spark):
    guests = [{"user_id": text} for text in ("", "NULL", "0", "-1", "guest")]
    rows = validated(spark, *guests, {}, nobody=("guest",)).select("user_id", "reasons").collect()
    assert [(row.user_id, row.reasons) for row in rows] == [(None, [])] * 5 + [(541312140, [])]
    rows = validated(spark, *guests[2:], nobody=("guest", "0"), ids="text").select("user_id").collect()
    assert [row.user_id for row in rows] == [None, "-1", None]


def test_event_names_are_translated_and_others_rejected_or_ignored(spark):
    names = [{"event_type": name} for name in ("pv", "fav", "view", "buy")]
    types = {"pv": "view", "buy": "purchase", "fav": "ignore"}
    rows = validated(spark, *names, event_types=types).select("event_type", "is_ignored", "reasons").collect()
    assert [row.event_type for row in rows if not row.reasons and not row.is_ignored] == ["view", "purchase"]
    assert [row.is_ignored for row in rows] == [False, True, False, False]
    assert rows[2].reasons == ['event_type "view" is unknown: map it in source.event_types, or ignore it']
    rows = (
        validated(spark, *names, event_types=types, on_unknown_event="ignore").select("is_ignored", "reasons").collect()
    )
    assert [(row.is_ignored, row.reasons) for row in rows] == [(False, []), (True, []), (True, []), (False, [])]


def test_whole_numbers_written_as_floats_are_ids_where_they_are_exact(spark):
    ids = ["17850.0", "5.4131214E8", "1e3", "9007199254740993.0", "541312140.5", "1.23457E+11", "0108775015", "+42"]
    rows = validated(spark, *({"product_id": text} for text in ids)).select("product_id").collect()
    assert [row.product_id for row in rows] == [17850, 541312140, 1000, None, None, None, None, None]


def test_prices_may_have_a_decimal_comma(spark):
    prices = [{"price": text} for text in ("35,79", "1.234,50", "12")]
    rows = validated(spark, *prices, decimal_comma=True).select(F.col("price").cast("string")).collect()
    assert [row.price for row in rows] == ["35.79", "1234.50", "12.00"]


def test_the_logs_own_event_id_tells_repeats(spark):
    rows = validated(
        spark, {"event_id": "a"}, {"event_id": "a", "brand": "x"}, {"event_id": "b"}, fields={"event_id": "id"}
    )
    assert len({row.event_id for row in rows.collect()}) == 2


def test_identical_records_of_a_file_are_kept_where_the_description_says_so(spark):
    def ids(**description):
        return sorted(row.event_id for row in validated(spark, {}, {}, {"brand": "x"}, **description).collect())

    assert len(set(ids())) == 2
    assert len(set(ids(identical="keep"))) == 3
    assert set(ids()) < set(ids(identical="keep"))


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
    expected = [[], [f'event_time "{beyond}" is in the future']]
    assert [row.reasons for row in events.select("reasons").collect()] == expected


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
    assert parsed(spark, TIMES, REES46) == TIMES


def parsed(spark, times, description):
    rows = spark.createDataFrame(times, "text string, moment string")
    rows = rows.select("text", described_time(F.col("text"), description).cast("string").alias("parsed"))
    return [(row.text, row.parsed) for row in rows.collect()]


IN_BERLIN = [
    ("2019-07-01 10:00:00", "2019-07-01 08:00:00"),
    ("2019-01-01 10:00", "2019-01-01 09:00:00"),
    ("2019-07-01", "2019-06-30 22:00:00"),
    ("2019-07-01 10:00:00 UTC", "2019-07-01 10:00:00"),
    ("2019-07-01 10:00:00 GMT", "2019-07-01 10:00:00"),
    ("2019-07-01T10:00:00+0530", "2019-07-01 04:30:00"),
    ("2019-07-01T10:00:00-03", "2019-07-01 13:00:00"),
    ("2019-07-01 10:00:00 America/New_York", "2019-07-01 14:00:00"),
    ("2019-07-01 10:00:00 CEST", "2019-07-01 08:00:00"),
    ("2019-10-27 02:30:00 CET", "2019-10-27 01:30:00"),
    ("2019-07-01 10:00:00 BST", None),
    ("2019-07-01 10:00:00 Europe/Atlantis", None),
    ("2019-03-31 02:30:00", None),
    ("2019-03-31 02:30:00 Europe/Berlin", None),
    ("1569888000", "2019-10-01 00:00:00"),
]


def test_a_time_zone_holds_for_times_without_one_and_no_abbreviation_is_guessed(spark):
    assert parsed(spark, IN_BERLIN, SourceDescription(time_zone="Europe/Berlin")) == IN_BERLIN


def test_numbers_are_times_in_the_described_unit_between_2000_and_2100(spark):
    for unit, factor in (("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)):
        good = str(1_569_888_000 * factor)
        times = [(good, "2019-10-01 00:00:00"), (good + "000", None), (good[:-3], None), (f"-{good}", None)]
        assert parsed(spark, times, SourceDescription(time_unit=unit)) == times


def test_a_time_format_is_followed_exactly(spark):
    german = [("01.10.2019 00:30", "2019-09-30 22:30:00"), ("2019-10-01 00:30", None), ("31.03.2019 02:30", None)]
    assert parsed(spark, german, SourceDescription(time_format="dd.MM.yyyy HH:mm", time_zone="Europe/Berlin")) == german
    with_zone = [("2019-10-01 00:30 +0200", "2019-09-30 22:30:00")]
    assert (
        parsed(spark, with_zone, SourceDescription(time_format="yyyy-MM-dd HH:mm Z", time_zone="Asia/Tokyo"))
        == with_zone
    )


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


def test_the_event_id_of_a_known_event_has_not_changed(spark):
    """Otherwise the next delivery of an event would not be recognised as a repeat."""
    assert validated(spark, {}).collect()[0].event_id == "fe71561cf363041e47bca168e2530153"


def test_text_ids_are_kept_as_they_are_written(spark):
    texts = ("0108775015", "108775015", "85123A", "gid://shopify/Product/1", "0", "-5", "1|1:x", "12,5")
    nobody = {"user_id": " ", "user_session": ""}
    rows = validated(
        spark, *({"product_id": f" {text} ", "user_id": text} for text in texts), nobody, ids="text"
    ).collect()
    assert [(row.product_id, row.user_id) for row in rows[:-1]] == [(text, text) for text in texts]
    assert [row.reasons for row in rows] == [[] for _ in texts] + [["user_id is missing, and there is no session"]]
    assert len({row.event_id for row in rows}) == len(rows)
