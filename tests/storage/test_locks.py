"""Tests that no two processes or threads wait forever for each other's locks on a lake."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

from lambda_spark.errors import JobRunningError
from lambda_spark.ingestion.ingest import create_tables
from lambda_spark.operations import quiesce
from lambda_spark.operations.vacuum import vacuum
from lambda_spark.settings import Settings
from lambda_spark.storage.tables import EVENTS, PRODUCTS


def test_a_vacuum_lets_a_job_that_it_waits_for_read(lake, monkeypatch):
    """A `forget` job locks `events`, and the vacuum waits for it. The job also needs the readers' lock to end."""
    create_tables(lake)
    monkeypatch.setattr(quiesce, "_PATIENCE_SECONDS", 0.5)
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
    at_rest = quiesce.at_rest

    def observed(*arguments, **options):
        readers_are_out.set()
        return at_rest(*arguments, **options)

    monkeypatch.setattr(quiesce, "at_rest", observed)
    vacuum(lake, Settings(), timedelta())
    done.append("vacuum")
    other.join(30)
    assert done == ["forget", "vacuum"]


def test_a_vacuum_waits_longer_with_each_attempt(lake, monkeypatch):
    create_tables(lake)
    monkeypatch.setattr(quiesce, "_PATIENCE_SECONDS", 0.5)
    attempts = []

    @contextmanager
    def at_rest(lake, settings, *, within):
        attempts.append(within)
        if within < 2 and len(attempts) < 9:
            raise JobRunningError("similarity is at a micro-batch of two seconds")
        yield

    monkeypatch.setattr(quiesce, "at_rest", at_rest)
    vacuum(lake, Settings(), timedelta())
    assert attempts == [0.5, 1, 2]


def test_a_lock_that_is_not_free_in_time_raises_an_error(lake):
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


OTHER_PROCESS = """
import fcntl, sys
products, events = (open(name, "r+b") for name in sys.argv[1:])
fcntl.lockf(products, fcntl.LOCK_EX)
print("has products", flush=True)
sys.stdin.readline()
fcntl.lockf(events, fcntl.LOCK_EX)
print("has both", flush=True)
"""


def test_threads_of_two_processes_that_wait_crosswise_are_no_deadlock(lake):
    """The kernel tracks lock owners only by process. So it would wrongly report a deadlock of the two processes."""
    with lake.locks.tables(PRODUCTS.name, EVENTS.name):
        pass
    files = [f"{lake.path}/_locks/table-{table.name}.lock" for table in (PRODUCTS, EVENTS)]
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "has products\n"

        def wait_for_products():
            with lake.locks.table(PRODUCTS.name):
                pass

        waiting = threading.Thread(target=wait_for_products, daemon=True)
        with lake.locks.table(EVENTS.name):
            waiting.start()
            time.sleep(0.5)
            other.stdin.write("now events\n")
            other.stdin.flush()
            time.sleep(0.5)
            assert other.poll() is None
        assert other.stdout.readline() == "has both\n"
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_job_that_is_already_running_is_named(lake):
    holder = f"""
import fcntl, sys, time
lock = open({str(lake.path + "/_locks/job-ingest.lock")!r}, "a+")
fcntl.lockf(lock, fcntl.LOCK_EX); print("held", flush=True); time.sleep(60)"""
    with lake.locks.job("ingest"):
        pass
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(JobRunningError, match=r"ingest is already running on this lake \(process \d+"),
            lake.locks.job("ingest"),
        ):
            pass
    finally:
        process.kill()
        process.wait()
