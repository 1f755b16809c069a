"""Locks of a lake: one process per kind of job, one writer per table, and no vacuum while anybody reads.

The JVM that writes the tables holds these locks as file locks. So the operating system frees the locks when this JVM
ends, even after a crash. The locks work on a local file system only. On any other file system, start all jobs of a lake
from one scheduler.

Code that needs several locks must take them in one order, so that no deadlock arises. First come the tables that
ingestion writes, then the readers' lock, then all other tables. Within each group, tables follow the order of
`tables.py`. Only a vacuum breaks this order, because it takes the readers' lock before all table locks. So a vacuum
waits only a few seconds for a table, then lets readers in and tries again (`quiesce.at_rest_unread`).
"""

from __future__ import annotations

import json
import logging
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

logger = logging.getLogger(__name__)

_ANNOUNCE_AFTER_SECONDS = 3.0
"""Number of seconds that a process waits for a lock before it logs why it waits."""
_WHOLE_FILE = 2**63 - 1
_RETRY_SECONDS = 0.1
"""Number of seconds between two attempts to get a lock.

Python repeats the attempts, because a wait inside Java has two faults. First, such a wait cannot be interrupted.
Second, the kernel can mistake such a wait for a deadlock, because it knows processes but no threads. In one case, two
processes waited for each other in different threads, and the kernel made one of the waits fail.
"""

# Open each lock file once per process and never close it. By POSIX, closing one channel of a file frees all locks that
# the process holds on this file.
_channels: dict[str, Any] = {}
_threads: dict[str, threading.RLock] = {}
_registry = threading.Lock()

# The paths of the locks that the current context holds. A thread with a copy of this context holds the same locks.
_held: ContextVar[frozenset[str]] = ContextVar("_held", default=frozenset())

_readers: dict[str, tuple[int, Any]] = {}
"""Dictionary from the path of a readers' lock to the number of readers in this process, and the lock that they share.

Code may use this dictionary only while it holds `_registry`.
"""


class Locks:
    """The locks of one lake.

    The locks do nothing if the lake is not on a local file system. They also do nothing if this process may not write
    to the lake's folder.

    Args:
        spark: The session whose JVM holds the locks.
        root: The lake's folder, as a path or a URI.
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        self._jvm: Any = spark._jvm
        is_local = root.startswith("/") and (os.access(root, os.W_OK) or not os.path.exists(root))
        self._folder = Path(root, "_locks") if is_local else None

    @contextmanager
    def job(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Hold the lock for one kind of job while the `with` body runs, so that no second such job starts.

        Args:
            name: The kind of job, like `ingest`.
            wait: Whether to wait until another process gives the lock back.

        Raises:
            JobRunningError: Another process holds the lock, and `wait` is false.
        """
        if self._folder is None:
            yield
            return
        channel, thread_lock = self._open(f"job-{name}")
        with thread_lock:
            lock = channel.tryLock()
            holder = self._folder / f"job-{name}.json"
            if lock is None and wait:
                logger.info(f"waiting for the {name} that is at work on this lake ({_describe(holder)})")
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
        """Hold the write locks of some tables for one micro-batch or transaction, while other writers wait.

        Args:
            names: Names of tables, in the order of `tables.py`.
            within: Maximum seconds to wait for each lock; None waits without limit.

        Raises:
            JobRunningError: One of the locks was still not free after `within` seconds.
        """
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(self.table(name, within=within))
            yield

    @contextmanager
    def table(self, name: str, *, within: float | None = None) -> Iterator[None]:
        """Hold the write lock of one table for a transaction, while other writers wait.

        A caller that already holds this lock gets it again without a wait.

        Args:
            name: Name of the table.
            within: Maximum seconds to wait for the lock; None waits without limit.

        Raises:
            JobRunningError: The lock was still not free after `within` seconds.
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
        """Share the readers' lock, so that no vacuum deletes files of the lake while the `with` body runs."""
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
        """Wait until nobody reads the lake, then keep all readers out while the `with` body runs."""
        if self._folder is None:
            yield
            return
        channel, thread_lock = self._open("readers")
        path = f"{self._folder}/readers.lock"
        if path in _held.get():
            yield
            return
        with thread_lock:
            with self._announced("waiting for the readers of this lake to end (a query, a report, an open shell)"):
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
        """Log a text if the `with` body takes longer than a few seconds."""
        timer = threading.Timer(_ANNOUNCE_AFTER_SECONDS, logger.info, [text])
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
        raise JobRunningError(f"{name} is being written by another thread of this job; try again later")
    try:
        yield
    finally:
        lock.release()


def _when_free(attempt: Callable[[], Any], within: float | None = None) -> Any:
    """Call `attempt` until it returns a lock. Return None if it returns no lock within `within` seconds."""
    end = None if within is None else time.monotonic() + within
    while (lock := attempt()) is None and (end is None or time.monotonic() < end):
        time.sleep(_RETRY_SECONDS)
    return lock


def _or_none(attempt: Callable[[], Any]) -> Any:
    """Return the lock that `attempt` gets. None if another process or another thread holds this lock."""
    try:
        return attempt()
    except Exception as error:
        if "OverlappingFileLockException" in str(error):
            return None
        raise


def _describe(holder: Path) -> str:
    """Describe the process that holds the lock of a job, as the JSON file beside the lock file records it."""
    try:
        entry = json.loads(holder.read_text())
        return f"process {entry['pid']}, since {entry['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
