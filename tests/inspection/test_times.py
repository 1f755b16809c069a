"""Tests of how times are told apart: units of numbers, patterns of texts, and what no sample can tell."""

from datetime import UTC, datetime

import pytest

from lambda_spark.inspection.times import read_time, times_of


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["1569888000", "1569888001"], "seconds"),
        (["1569888000.25", "1.569888001e9"], "seconds"),
        (["1433221332117"], "milliseconds"),
        (["1710230400000000"], "microseconds"),
        (["1569888000000000000"], "nanoseconds"),
    ],
)
def test_the_unit_of_numbers_is_the_one_in_which_they_fall_into_this_century(values, unit):
    times = times_of(values)
    assert (times.unit, times.format, times.zoned, times.doubt) == (unit, "", True, "")


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ("01.10.2019 00:00", "dd.MM.yyyy HH:mm"),
        ("1.10.2019 9:05", "d.M.yyyy H:mm"),
        ("31/12/2019 23:59:59", "dd/MM/yyyy HH:mm:ss"),
        ("12/31/2010 8:26", "MM/dd/yyyy H:mm"),
        ("1/31/10 8:26 PM", "M/d/yy h:mm a"),
        ("2019/10/01 10:00", "yyyy/MM/dd HH:mm"),
        ("20191001", "yyyyMMdd"),
    ],
)
def test_texts_get_sparks_pattern(value, pattern):
    times = times_of([value] * 3)
    assert (times.format, times.zoned, times.doubt) == (pattern, False, "")
    assert read_time(value, unit="seconds", pattern=pattern, zone="UTC") is not None


@pytest.mark.parametrize(
    ("value", "zoned"),
    [
        ("2019-10-01 00:00:00 UTC", True),
        ("2014-04-07T10:51:09.277Z", True),
        ("2024-03-01T09:15:00-05:00", True),
        ("2019-10-01 00:00:00 Europe/Berlin", True),
        ("2019-10-01T00:00:00.123456789", False),
        ("2019-10-01", False),
    ],
)
def test_iso_8601_needs_no_pattern(value, zoned):
    times = times_of([value])
    assert (times.unit, times.format, times.zoned, times.doubt) == ("", "", zoned, "")
    assert read_time(value, unit="seconds", pattern="", zone="UTC") is not None


def test_a_single_number_above_12_tells_the_order_of_day_and_month():
    assert times_of(["01/02/2023", "03/04/2023", "13/04/2023"]).format == "dd/MM/yyyy"
    assert times_of(["01/02/2023", "03/04/2023", "03/14/2023"]).format == "MM/dd/yyyy"


def test_without_one_the_order_is_not_guessed():
    times = times_of(["01/02/2023 10:00", "03/04/2023 11:00"])
    assert "whether the day or the month comes first" in times.doubt
    assert times.candidates == ('time_format = "dd/MM/yyyy HH:mm"', 'time_format = "MM/dd/yyyy HH:mm"')
    assert "2 times have the day first and 1 the month" in times_of(["13/02/2023", "14/02/2023", "02/15/2023"]).doubt


def test_mixed_units_are_not_guessed_but_one_stray_number_is_no_mixture():
    times = times_of(["1700000000"] * 3 + ["1700000001000"] * 2)
    assert times.doubt == "times are mixed: 3 in seconds, 2 in milliseconds"
    assert times.candidates == ('time_unit = "seconds"', 'time_unit = "milliseconds"')
    assert times_of(["1700000000"] * 200 + ["1700000001000"]).doubt == ""


def test_the_letters_of_a_zone_that_several_regions_have_are_not_guessed():
    times = times_of(["2019-10-01 00:00:00 IST"])
    assert times.doubt == "IST is the zone of several regions"
    regions = ("Europe/Dublin", "Asia/Kolkata", "Asia/Jerusalem")
    assert times.candidates == tuple(f'time_zone = "{region}"' for region in regions)


def test_ids_prices_and_words_are_no_times():
    for values in (["44600062", "3900821"], ["35.79", "1.50"], ["view", "cart"], []):
        assert times_of(values) is None


def test_a_time_is_read_in_its_zone():
    berlin = read_time("01.07.2019 12:00", unit="seconds", pattern="dd.MM.yyyy HH:mm", zone="Europe/Berlin")
    assert berlin == datetime(2019, 7, 1, 10, tzinfo=UTC)
    utc = read_time("2019-07-01 12:00:00 UTC", unit="seconds", pattern="", zone="Europe/Berlin")
    assert utc == datetime(2019, 7, 1, 12, tzinfo=UTC)
    assert read_time("1561982400000", unit="milliseconds", pattern="", zone="UTC") == utc
    assert read_time("2019-07-01 12:00:00 BST", unit="seconds", pattern="", zone="UTC") is None
    assert read_time("2019-02-30", unit="seconds", pattern="", zone="UTC") is None
