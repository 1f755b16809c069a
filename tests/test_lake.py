"""What a lake says of its tables."""

from datetime import timedelta

from lambda_spark.tables import EVENTS


def test_what_is_recorded_is_read_as_it_was_also_where_it_looks_like_a_secret(lake):
    recorded = {"topic_id.kafka.tokens": "a", "topic_id.kafka.clicks": "mSAh8URLR2", "settings": "it's 7 days"}
    lake.create(EVENTS, properties=recorded)
    assert lake.properties(EVENTS) == recorded
    lake.set_properties(EVENTS, {"secret": "url"})
    assert lake.properties(EVENTS) == {**recorded, "secret": "url"}


def test_a_log_that_was_cleaned_is_known_to_be_shorter(lake, tmp_path):
    lake.create(EVENTS)
    for number in range(3):
        lake.set_properties(EVENTS, {"number": str(number)})
    assert lake.has_log_since(EVENTS, 0)
    for version in (0, 1):
        (tmp_path / "lake" / "events" / "_delta_log" / f"{version:020}.json").unlink()
    assert lake.has_log_since(EVENTS, 1)
    assert not lake.has_log_since(EVENTS, 0)


def test_a_vacuum_keeps_at_least_what_was_asked_for(lake):
    lake.create(EVENTS)
    lake.vacuum(EVENTS, timedelta(minutes=119))
    found = lake.spark.sql(f"show tblproperties delta.`{lake.location(EVENTS)}`").collect()
    assert dict(map(tuple, found))["delta.deletedFileRetentionDuration"] == "interval 2 hours"
