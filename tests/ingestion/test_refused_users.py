"""Tests of finding user ids in a rejected line, which is not a valid event."""

import pytest
from pyspark.sql import functions as F

from lambda_spark.ingestion.refused_users import pseudonym, user_ids, users_named

LINE = "2019-10-01 06:07:08 UTC,look,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde-9bb3"


@pytest.mark.parametrize(
    ("raw", "user", "named"),
    [
        (LINE, 541312140, True),
        (LINE, 44600062, True),
        (LINE, 35, True),
        *((LINE, part, False) for part in (2019, 10, 1, 6, 7, 8, 79)),
        ("5413121402019-10-01 06:07:08", 541312140, True),
        ("view,1,541312140.0,s", 541312140, True),
        ("view:1:541312140:44:s", 541312140, True),
        ('{"event_time":"2019-10-01T06:07:08.123Z","user_id":0541312140}', 541312140, True),
        ("2019-10-01 06:07:08 UTC,541312140".encode("utf-16-le").decode("latin-1"), 541312140, True),
        ("user541312140view", 541312140, True),
        ('{"product_id":1.0,"user_id":5.4131214E8}', 541312140, True),
        ("5413121401", 541312140, False),
    ],
)
def test_every_whole_number_outside_dates_and_times_counts_as_a_user(spark, raw, user, named):
    """The month in a date must not count as a user id, because a store may have user ids as small as 12."""
    [row] = spark.range(1).select(users_named(F.lit(raw), "salt").alias("users")).collect()
    assert (pseudonym(user, "salt") in row.users) is named


GID = "gid://shopify/Customer/1"
UUID = "70bbe85a-97db-4f19-8a5c-1234-11-22ff"


@pytest.mark.parametrize(
    ("raw", "user", "named"),
    [
        (f"2019-10-01 06:07:08 UTC,look,85123A,,,,,{GID},s", GID, True),
        (f"2019-10-01T06:07:08Z;look;85123A; {UUID} ;s", UUID, True),
        (f"look\t{GID}\t1", GID, True),
        (f"look {GID} 85123A", GID, False),
        ("look u-1 85123A", "u-1", True),
        ("look:u-1:85123A", "u-1", True),
        (f'{{"user_id": "{GID}", "product_id":85123}}', GID, True),
        ('{"user_id":0108775015,"x":1', "0108775015", True),
        ('{"user_id":0108775015,"x":1', "108775015", True),
        (f'{{"user": {{"id":"{GID}"}}}}'.replace("/", "\\/"), GID, True),
        ('{"user_id":"\\u00e9t\\u00e9"}', "été", True),
        ('{"user_id":"a \\"b\\", c"}', 'a "b", c', True),
        ('view,"a ""b"", c",1', 'a "b", c', True),
        ('view,"Smith, John",1', "Smith, John", True),
        (f"look,{GID}".encode("utf-16-le").decode("latin-1"), GID, True),
        (LINE, "541312140", True),
        (LINE, "10", False),
        pytest.param(f"look,u-1,{'x' * 1_000_000}", "u-1", True, id="a long line"),
        pytest.param('look,u-1,"' + '\\"' * 500_000, "u-1", True, id="a long field without an end"),
        ("look,u-12,1", "u-1", False),
        (f"{GID}1", GID, False),
    ],
)
def test_every_field_and_every_word_counts_as_a_user_where_ids_are_texts(spark, raw, user, named):
    [row] = spark.range(1).select(users_named(F.lit(raw), "salt", "text").alias("users")).collect()
    assert (pseudonym(user, "salt") in row.users) is named


def test_a_list_of_users_has_ids_of_the_lake_s_kind():
    lines = ["user_id", "012", "", ' "85123A" ', '"a ""b"", c"', "gid://a/1"]
    assert user_ids(lines, "text") == ({"012", "85123A", 'a "b", c', "gid://a/1"}, [])
    assert user_ids(lines, "integer") == ({12}, ["line 4", "line 5", "line 6"])
