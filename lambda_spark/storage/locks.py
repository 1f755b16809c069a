"""Locks of a lake: one process per job kind, one writer per table, and readers that keep a vacuum away.

They are file locks held by the JVM that writes, so that they end with it, however it ends. They work on a local file
system; elsewhere one scheduler must own the lake.

What takes several locks takes them in this order, so that no two wait for each other: the tables that ingestion
writes, readers, other tables, each as they stand in `tables.py`. Who keeps readers out before that waits for nobody
longer than a few seconds (`draining.at_rest_unread`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from lambda_spark.errors import JobRunningError

_PATIENCE_SECONDS = 3.0
"""Who waits longer than this is told for what."""
_WHOLE_FILE = 2**63 - 1
_LOOK_EVERY = 0.1
"""Seconds between two looks for a lock that is waited for. A wait within Java could not be interrupted, and where two
threads of each of two processes wait the kernel, which knows no threads, takes it for a deadlock and fails one."""

# A lock file is opened once per process and never closed: closing any channel of a file frees all its locks (POSIX).
_channels: dict[str, Any] = {}
_threads: dict[str, threading.RLock] = {}
_registry = threading.Lock()

# The locks that the work at hand holds already, also where it goes on in another thread with a copy of this context.
_held: ContextVar[frozenset[str]] = ContextVar("_held", default=frozenset())

_readers: dict[str, tuple[int, Any]] = {}
"""Lock file: how many readers of this process share it, and the file lock. Guarded by `_registry`."""


class Locks:
    """The locks of one lake; where it is not on a local file system, or can't be written, they do nothing."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self._jvm: Any = spark._jvm
        is_local = root.startswith("/") and (os.access(root, os.W_OK) or not os.path.exists(root))
        self._folder = Path(root, "_locks") if is_local else None
        self.say: Callable[[str], None] = lambda text: None
        """Where a line goes about what is being waited for."""

    @contextmanager
    def job(self, name: str, *, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold a job kind for as long as it runs.

        Where another process holds it, raises JobRunningError, or tells `waiting` whom it waits for, and waits.
        """
        if self._folder is None:
            yield
            return
        channel, thread_lock = self._open(f"job-{name}")
        with thread_lock:
            lock = channel.tryLock()
            holder = self._folder / f"job-{name}.json"
            if lock is None and waiting is not None:
                waiting(f"waiting for the {name} that is at work on this lake ({_describe(holder)})")
                lock = _when_free(channel.tryLock)
            if lock is None:
                raise JobRunningError(
                    f"{name} is already running on this lake ({_describe(holder)}); wait for it or stop it"
                )
            holder.write_text(json.dumps({"pid": os.getpid(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}))
            try:
                yield
            finally:
                lock.release()

    @contextmanager
    def tables(self, *names: str, within: float | None = None) -> Iterator[None]:
        """Hold some tables for one micro-batch or transaction; others wait. Name them as they stand in `tables.py`.

        Raises JobRunningError where one of them is not free `within` so many seconds.
        """
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self.table(name, within=within))
            yield

    @contextmanager
    def table(self, name: str, *, within: float | None = None) -> Iterator[None]:
        """Hold a table for one transaction; others wait. What holds it already goes on.

        Raises JobRunningError where it is not free `within` so many seconds.
        """
        if self._folder is None:
            yield
            return
        channel, thread_lock = self._open(f"table-{name}")
        key = f"{self._folder}/{name}"
        if key in _held.get():
            yield
            return
        with _thread_holding(thread_lock, name, within):
            lock = channel.tryLock()
            if lock is None:
                with self._announced(f"waiting for {name}: another process is writing it"):
                    lock = _when_free(channel.tryLock, within)
            if lock is None:
                raise JobRunningError(f"{name} is being written by another process; wait for it or stop it")
            token = _held.set(_held.get() | {key})
            try:
                yield
            finally:
                _held.reset(token)
                lock.release()

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Keep the files of every version where they are: share a lock that only a vacuum takes alone."""
        if self._folder is None:
            yield
            return
        channel, _ = self._open("readers")
        path = f"{self._folder}/readers.lock"
        if path in _held.get():
            yield
            return
        with self._announced("waiting for a vacuum of this lake to end"):
            _when_free(lambda: self._join_readers(path, channel))
        try:
            yield
        finally:
            with _registry:
                count, lock = _readers.pop(path)
                if count > 1:
                    _readers[path] = (count - 1, lock)
                else:
                    lock.release()

    @contextmanager
    def no_readers(self) -> Iterator[None]:
        """Wait until nobody reads, and keep readers out."""
        if self._folder is None:
            yield
            return
        channel, thread_lock = self._open("readers")
        path = f"{self._folder}/readers.lock"
        if path in _held.get():
            yield
            return
        with thread_lock:
            with self._announced("waiting for whoever reads this lake to end (a query, a report, an open shell)"):
                lock = _when_free(lambda: self._oust_readers(path, channel))
            token = _held.set(_held.get() | {path})
            try:
                yield
            finally:
                _held.reset(token)
                lock.release()

    def _join_readers(self, path: str, channel: Any) -> Any:
        with _registry:
            count, lock = _readers.get(path, (0, None))
            if lock is None:
                lock = _or_none(lambda: channel.tryLock(0, _WHOLE_FILE, True))
            if lock is not None:
                _readers[path] = (count + 1, lock)
            return lock

    def _oust_readers(self, path: str, channel: Any) -> Any:
        with _registry:
            return None if path in _readers else _or_none(channel.tryLock)

    @contextmanager
    def _announced(self, text: str) -> Iterator[None]:
        timer = threading.Timer(_PATIENCE_SECONDS, self.say, [text])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _open(self, name: str) -> tuple[Any, threading.RLock]:
        assert self._folder is not None
        path = str(self._folder / f"{name}.lock")
        with _registry:
            if path not in _channels:
                self._folder.mkdir(parents=True, exist_ok=True)
                _channels[path] = self._jvm.java.io.RandomAccessFile(path, "rw").getChannel()
                _threads[path] = threading.RLock()
            return _channels[path], _threads[path]


@contextmanager
def _thread_holding(lock: threading.RLock, name: str, within: float | None) -> Iterator[None]:
    if not lock.acquire(timeout=-1 if within is None else within):
        raise JobRunningError(f"{name} is being written by another thread")
    try:
        yield
    finally:
        lock.release()


def _when_free(attempt: Callable[[], Any], within: float | None = None) -> Any:
    """The lock that an attempt gets, or None where it gets none within so many seconds."""
    end = None if within is None else time.monotonic() + within
    while (lock := attempt()) is None and (end is None or time.monotonic() < end):
        time.sleep(_LOOK_EVERY)
    return lock


def _or_none(attempt: Callable[[], Any]) -> Any:
    """A lock, or None where another process or another thread of this one is in the way."""
    try:
        return attempt()
    except Exception as error:
        if "OverlappingFileLockException" in str(error):
            return None
        raise


def _describe(holder: Path) -> str:
    try:
        entry = json.loads(holder.read_text())
        return f"process {entry['pid']}, since {entry['since']}"
    except (OSError, ValueError, KeyError):
        return "by another process"
