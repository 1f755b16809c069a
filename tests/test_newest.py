"""Tests of the newest date of a store: which events count, and which are set aside because they are few and far."""

from datetime import date, timedelta

import pytest

from lambda_spark.newest import Newest, SetAside, newest, newest_of

OCT_1 = date(2019, 10, 1)


def counts(*runs):
    """Return events per date, from (first day after 1 October, events of each following date)."""
    return {OCT_1 + timedelta(days=first + at): events for first, run in runs for at, events in enumerate(run)}


def test_without_events_there_is_no_newest_date():
    assert newest({}) == Newest(None)


def test_one_event_years_later_is_set_aside():
    found = newest(counts((0, [100, 100])) | {date(2024, 1, 1): 1})
    assert found == Newest(date(2019, 10, 2), SetAside(1, date(2024, 1, 1), date(2024, 1, 1), 1552))


@pytest.mark.parametrize(("events", "counted"), [(9, False), (10, True)])
def test_a_tail_counts_with_a_tenth_of_the_events_of_an_average_date(events, counted):
    found = newest(counts((0, [150, 50]), (30, [events])))
    assert (found.set_aside is None) == counted


@pytest.mark.parametrize(("days", "counted"), [(7, True), (8, False)])
def test_a_week_without_events_is_no_gap(days, counted):
    assert (newest(counts((0, [100]), (days, [1]))).set_aside is None) == counted


def test_the_events_of_a_tail_are_counted_together():
    assert newest(counts((0, [100]), (30, [4, 5]))).date == OCT_1
    assert newest(counts((0, [100]), (30, [4, 5, 1]))).date == OCT_1 + timedelta(days=32)


def test_a_store_with_few_events_per_date_sets_nothing_aside():
    assert newest(counts((0, [9, 9, 9]), (400, [1]))).set_aside is None
    assert newest(counts((0, [10]), (400, [1]))).set_aside is None


def test_many_wrong_clocks_with_dates_of_their_own_are_all_set_aside():
    found = newest(counts((0, [40] * 30), *((100 * year, [3]) for year in range(1, 9))))
    assert found.date == date(2019, 10, 30)
    assert found.set_aside == SetAside(24, OCT_1 + timedelta(days=100), OCT_1 + timedelta(days=800), 71)


def test_events_long_before_the_store_do_not_matter():
    assert newest({date(2010, 1, 1): 1} | counts((0, [100, 100]))).date == date(2019, 10, 2)


def test_a_tail_before_a_run_that_counts_counts_too():
    assert newest(counts((0, [100]), (30, [1]), (60, [80]))).date == OCT_1 + timedelta(days=60)


def test_late_events_can_move_the_newest_date_back():
    assert newest(counts((0, [100]), (30, [12]))).date == OCT_1 + timedelta(days=30)
    assert newest(counts((0, [130]), (30, [12]))).date == OCT_1


def test_a_note_tells_whether_dates_only_came_in_addition():
    head, tail = counts((0, [100, 100])), counts((30, [1]))
    note = newest(head | tail).to_note()
    assert note == {"newest_date": "2019-10-02", "set_aside_from": "2019-10-31"}
    assert newest(head | counts((2, [100]), (30, [2]))).only_adds_to(note)
    assert not newest(head | counts((30, [50]))).only_adds_to(note)
    assert not newest(counts((0, [100]))).only_adds_to(note)
    assert not newest(head).only_adds_to({})
    assert newest(head).only_adds_to(newest({}).to_note())


def test_events_of_a_data_frame_are_counted(spark):
    dates = [OCT_1] * 20 + [date(2024, 1, 1)]
    events = spark.createDataFrame([(day,) for day in dates], "event_date date")
    assert newest_of(events) == Newest(OCT_1, SetAside(1, date(2024, 1, 1), date(2024, 1, 1), 1553))
