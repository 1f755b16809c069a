from dataclasses import fields
from datetime import date, timedelta
from pathlib import Path

import pytest

from lambda_spark.errors import UsageError
from lambda_spark.settings import (
    RecommendationSettings,
    Settings,
    SimilaritySettings,
    TrendSettings,
    from_recorded,
    load_settings,
    recorded,
)

CONF = Path(__file__).resolve().parents[1] / "conf" / "lambda.toml"


def test_the_settings_file_lists_every_setting_with_its_default():
    assert load_settings(CONF) == Settings()
    listed = {
        line.split("=")[0].strip() for line in CONF.read_text().splitlines() if "=" in line and line[0] not in "#["
    }
    assert listed == {setting.name for section in fields(Settings) for setting in fields(section.default_factory)}


def test_an_assignment_overrides_the_file(tmp_path):
    file = tmp_path / "lambda.toml"
    file.write_text('[trends]\nbucket = "30 minutes"\nmin_change = 3\n')
    settings = load_settings(
        file, ["trends.min_change=4", "trends.origin=2019-11-01", "recommendations.deny_products=7,8"]
    )
    assert settings.trends == TrendSettings(bucket=timedelta(minutes=30), min_change=4, origin=date(2019, 11, 1))
    assert settings.recommendations.deny_products == ("7", "8")
    assert load_settings(None, ["ingest.exclude=bad*.csv, /in/x y.csv"]).ingest.exclude == ("bad*.csv", "/in/x y.csv")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("trends.buckets=7 days", "unknown setting 'trends.buckets'; did you mean 'bucket'?"),
        ("trend.bucket=7 days", "unknown section 'trend'; did you mean 'trends'?"),
        ("trends.bucket", "write it as section.key=value"),
        ("trends.bucket=a week", "trends.bucket must be a duration like '7 days'"),
        ("trends.bucket=0 days", "trends.bucket must be at least '1 minute'"),
        ("trends.origin=01.11.2019", "trends.origin must be a date like 2019-11-01"),
        ("trends.min_change=ten", "trends.min_change must be a whole number, not 'ten'"),
        ("trends.min_change=1.5", "trends.min_change must be a whole number, not '1.5'"),
        ("trends.min_z=nan", "trends.min_z must be a number, not 'nan'"),
        ("trends.min_z=-1", "trends.min_z must be at least 0"),
        ("similarity.window=7", "similarity.window must be 1 to 6"),
        ("similarity.measure=dice", "similarity.measure must be one of confidence, cosine, jaccard, lift, llr"),
        ("similarity.max_bytes_per_batch=lots", "similarity.max_bytes_per_batch must be a size"),
        ("recommendations.repeat=maybe", "recommendations.repeat must be one of exclude, allow, boost"),
        ("recommendations.list_length=0", "recommendations.list_length must be 1 to 1000"),
        ("maintenance.retention=0 days", "maintenance.retention must be at least '1 hour'"),
        ("maintenance.expire_days=-1", "maintenance.expire_days must be at least 0"),
        ("ingest.max_ahead=-1 minutes", "ingest.max_ahead must be a duration like '7 days'"),
        ("source.header=yes", "source.header must be true or false, not 'yes'"),
        ("ingest.header=false", "ingest.header is now called source.header"),
        ("source.fields.user=x", "source.fields has no field 'user'"),
        ("source.fieldz=x", "unknown setting 'source.fieldz'; did you mean 'fields'?"),
        ("source.delimiter=;;", "source.delimiter must be one character"),
        ("source.time_zone=Berlin", "source.time_zone must be a region like Europe/Berlin"),
        ("source.encoding=utf-9", "there is no encoding 'utf-9'"),
        ("source.event_types.pv=look", "'pv' must become one of view, cart, remove_from_cart, purchase, ignore"),
        ("source.columns=a,b", "set source.header = false"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(assignment, message):
    with pytest.raises(UsageError) as refused:
        load_settings(None, [assignment])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_product_ids_are_read_as_numbers_or_texts(tmp_path):
    file = tmp_path / "lambda.toml"
    file.write_text('[recommendations]\nallow_products = [1, "0108775015", "a,b"]\n')
    listed = load_settings(file, ['recommendations.deny_products="a,b", 85123A']).recommendations
    assert listed.allow_products == ("1", "0108775015", "a,b")
    assert listed.deny_products == ("a,b", "85123A")
    assert recorded(RecommendationSettings(allow_products=("1", "2")))["allow_products"] == "1,2"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[trends\n", "not TOML"),
        ("[trends]\nbuckets = 1\n", "unknown setting 'trends.buckets'"),
        ("trends = 1\n", "must be a [section]"),
        ("[recommendations]\ndeny_products = [1.5]\n", "recommendations.deny_products must be a text, not '1.5'"),
    ],
)
def test_a_wrong_settings_file_is_refused(tmp_path, content, message):
    file = tmp_path / "wrong.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"wrong\.toml") as refused:
        load_settings(file)
    assert message in str(refused.value)


def test_a_missing_settings_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        load_settings(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "section",
    [
        TrendSettings(bucket=timedelta(minutes=30), min_z=2.5, origin=date(2019, 11, 1)),
        SimilaritySettings(window=3, measure="llr", half_life_days=0, refresh_interval=timedelta(days=1000)),
        RecommendationSettings(allow_products=("1", 'a "b", c'), filter="price > 1", trend_weight=0),
    ],
)
def test_recorded_settings_are_read_back_unchanged(section):
    assert from_recorded(type(section), recorded(section)) == section
