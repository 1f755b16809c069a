"""Tests of the ready descriptions in conf/sources: each one's sample is known, and read as the description says."""

from collections import Counter

import pytest

from lambda_spark.inspection.description import SOURCES, load
from lambda_spark.inspection.judge import judge
from lambda_spark.inspection.proposal import inspect
from lambda_spark.inspection.ready import ready_names
from lambda_spark.inspection.sample import read_sample
from lambda_spark.source_description import DESCRIBED_FIELDS

SAMPLES = {file.stem: file for file in sorted((SOURCES / "samples").iterdir())}

# Events by type, repeats, ignored, and the reasons of rejections.
EXPECTED = {
    "diginetica": ({"view": 11}, 0, 0, ["event_time is missing"]),
    "diginetica-purchases": ({"purchase": 9}, 0, 0, ["itemId is missing"]),
    "ga4": ({"view": 5, "cart": 2, "remove_from_cart": 1, "purchase": 3}, 0, 6, ["items.item_id is missing"]),
    "hm": ({"purchase": 12}, 0, 0, ["article_id is missing"]),
    "instacart": ({"purchase": 12}, 0, 0, ["product_id is missing"]),
    "online-retail": ({"purchase": 9}, 1, 3, ["StockCode is missing"]),
    "online-retail-ii": ({"purchase": 9}, 1, 3, ["StockCode is missing"]),
    "otto": ({"view": 15, "cart": 4, "purchase": 2}, 0, 0, ["events.aid is missing"]),
    "rees46": ({"view": 6, "cart": 2, "remove_from_cart": 1, "purchase": 2}, 0, 0, ["product_id is missing"]),
    "retailrocket": ({"view": 9, "cart": 2, "purchase": 2}, 0, 0, ["timestamp is missing"]),
    "segment": ({"view": 4, "cart": 3, "remove_from_cart": 1, "purchase": 3}, 0, 6, ["product_id is missing"]),
    "shopify": ({"purchase": 13}, 0, 2, ["line_items.product_id is missing"]),
    "taobao": (
        {"view": 8, "cart": 2, "purchase": 1},
        0,
        2,
        ["timestamp is before 2000 in seconds", "timestamp is in the future"],
    ),
    "yoochoose": ({"view": 11}, 0, 0, ["item is missing"]),
    "yoochoose-buys": ({"purchase": 9}, 0, 0, ["time is no time in seconds or in ISO 8601"]),
}

# What the samples leave to a person where no ready description is known. Without a header it is everything.
NAMELESS = {"event_time", "event_type", "product_id", "user_id"}
UNSURE = {
    "diginetica": {"event_type"},
    "diginetica-purchases": {"event_type"},
    "ga4": {"user_id"},
    "hm": {"event_type"},
    "instacart": {"event_type"},
    "retailrocket": {"nobody"},
    "segment": {"explode", "user_id"},
    "shopify": {"event_type"},
    "taobao": NAMELESS,
    "yoochoose": NAMELESS,
    "yoochoose-buys": NAMELESS,
}


def test_every_ready_description_has_a_sample_and_a_comment():
    assert sorted(SAMPLES) == ready_names() == sorted(EXPECTED)
    for name in ready_names():
        text = (SOURCES / f"{name}.toml").read_text()
        assert text.startswith("# "), name
        assert "gnored" in text, name
        assert set(load(SOURCES / f"{name}.toml").fields) <= set(DESCRIBED_FIELDS), name


@pytest.mark.parametrize("name", EXPECTED)
def test_a_sample_is_read_as_its_description_says(name):
    events, repeats, ignored, reasons = EXPECTED[name]
    description = load(SOURCES / f"{name}.toml")
    verdict = judge(read_sample([SAMPLES[name]]), description)
    assert (verdict.events, verdict.repeats, verdict.ignored) == (sum(events.values()), repeats, ignored)
    assert sorted(verdict.rejected) == reasons
    assert verdict.event_types == Counter(events)
    assert 10 <= verdict.records <= 25


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "rees46"])
def test_a_sample_is_known_and_its_ready_description_is_proposed(name):
    found = inspect([SAMPLES[name]])
    assert found.ready.name == name
    assert found.is_sure
    assert found.toml() == (SOURCES / f"{name}.toml").read_text()


def test_a_log_of_rees46_needs_no_description():
    found = inspect([SAMPLES["rees46"]])
    assert found.needs_no_description
    assert found.description.fields == load(SOURCES / "rees46.toml").fields


@pytest.mark.parametrize("name", EXPECTED)
def test_without_ready_descriptions_it_is_named_what_a_sample_does_not_tell(name, tmp_path):
    found = inspect([SAMPLES[name]], tmp_path)
    assert {doubt.key for doubt in found.doubts} == UNSURE.get(name, set())
    if name in ("rees46", "retailrocket", "hm", "instacart"):
        fields = load(SOURCES / f"{name}.toml").fields
        assert found.description.fields == {key: fields[key] for key in fields if key not in UNSURE.get(name, set())}


def test_rees46_without_a_header_is_known_by_its_values(tmp_path):
    lines = SAMPLES["rees46"].read_text().splitlines(keepends=True)[1:]
    (tmp_path / "log.csv").write_text("".join(lines))
    found = inspect([tmp_path / "log.csv"])
    assert (found.is_sure, found.ready.name, found.verdict.events) == (True, "rees46", 11)
    assert (found.description.header, found.description.columns[:2]) == (False, ("event_time", "event_type"))
    assert not found.needs_no_description
    assert 'columns = ["event_time", ' in found.toml()


def test_a_log_with_a_ready_descriptions_columns_but_other_values_is_not_taken_for_it(tmp_path):
    text = SAMPLES["retailrocket"].read_text().replace("view", "besuch")
    (tmp_path / "log.csv").write_text(text)
    found = inspect([tmp_path / "log.csv"])
    assert found.ready is None
    assert [doubt.key for doubt in found.doubts if doubt.section == "event_types"] == ["besuch"]


def test_the_same_names_among_others_are_another_log(tmp_path):
    lines = SAMPLES["instacart"].read_text().splitlines()
    text = "".join(f"{line},{'event_type' if number == 0 else 'view'}\n" for number, line in enumerate(lines))
    (tmp_path / "log.csv").write_text(text)
    found = inspect([tmp_path / "log.csv"])
    assert (found.ready, found.description.fields["event_type"]) == (None, "event_type")


def test_other_values_in_as_many_columns_are_another_log(tmp_path):
    text = SAMPLES["yoochoose"].read_text().replace(",0\n", ",view\n").replace(",S\n", ",buy\n")
    (tmp_path / "log.csv").write_text(text)
    assert inspect([tmp_path / "log.csv"]).ready is None


def test_the_row_numbers_of_pandas_do_not_hide_a_known_log(tmp_path):
    lines = SAMPLES["retailrocket"].read_text().splitlines()
    text = "".join(f"{number - 1 if number else ''},{line}\n" for number, line in enumerate(lines))
    (tmp_path / "log.csv").write_text(text)
    assert inspect([tmp_path / "log.csv"]).ready.name == "retailrocket"
