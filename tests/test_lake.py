"""What a lake says of its tables."""

from lambda_spark.tables import EVENTS


def test_what_is_recorded_is_read_as_it_was_also_where_it_looks_like_a_secret(lake):
    recorded = {"topic_id.kafka.tokens": "a", "topic_id.kafka.clicks": "mSAh8URLR2", "settings": "it's 7 days"}
    lake.create(EVENTS, properties=recorded)
    assert lake.properties(EVENTS) == recorded
    lake.set_properties(EVENTS, {"secret": "url"})
    assert lake.properties(EVENTS) == {**recorded, "secret": "url"}
