"""Locks of a lake: nobody waits for somebody who waits."""

import threading
from datetime import timedelta

import pytest

from lambda_spark.errors import JobRunningError
from lambda_spark.events.ingest import create_tables
from lambda_spark.operations import draining
from lambda_spark.operations.vacuuming import vacuum
from lambda_spark.settings import Settings
from lambda_spark.tables import EVENTS


def test_a_vacuum_lets_whom_it_waits_for_read_first(lake, monkeypatch):
    """A `forget` holds `events` and then renews the views, for which it reads."""
    create_tables(lake)
    monkeypatch.setattr(draining, "_PATIENCE_SECONDS", 0.5)
    holding, readers_are_out, done = threading.Event(), threading.Event(), []

    def forget():
        with lake.locks.table(EVENTS.name):
            holding.set()
            assert readers_are_out.wait(30)
            with lake.locks.reader():
                done.append("forget")

    other = threading.Thread(target=forget, daemon=True)
    other.start()
    assert holding.wait(30)
    at_rest = draining.at_rest

    def observed(*arguments, **options):
        readers_are_out.set()
        return at_rest(*arguments, **options)

    monkeypatch.setattr(draining, "at_rest", observed)
    vacuum(lake, Settings(), timedelta(), lambda text: None)
    done.append("vacuum")
    other.join(30)
    assert done == ["forget", "vacuum"]


def test_a_table_that_stays_held_is_said_after_the_time_given(lake):
    create_tables(lake)
    holding, enough = threading.Event(), threading.Event()

    def hold():
        with lake.locks.table(EVENTS.name):
            holding.set()
            enough.wait(30)

    other = threading.Thread(target=hold, daemon=True)
    other.start()
    assert holding.wait(30)
    with pytest.raises(JobRunningError, match="events is being written"), lake.locks.tables(EVENTS.name, within=0.2):
        pass
    enough.set()
    other.join(30)
