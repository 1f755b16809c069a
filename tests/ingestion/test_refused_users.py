"""Tests of finding user ids in a rejected line, which is not a valid event."""

import pytest
from pyspark.sql import functions as F

from lambda_spark.ingestion.refused_users import pseudonym, users_named

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
