"""Locks of a lake: one process per job kind, one writer per table.

They are file locks held by the JVM that writes, so that they end with it, however it ends. They work on a local file
system; elsewhere one scheduler must own the lake.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from lambda_spark.errors import JobRunningError

_LOOK_EVERY = 1.0
"""Seconds between two looks for a lock that is waited for: a wait within Java could not be interrupted."""

# A lock file is opened once per process and never closed: closing any channel of a file frees all its locks (POSIX).
_channels: dict[str, Any] = {}
_threads: dict[str, threading.RLock] = {}
_registry = threading.Lock()


class Locks:
    """The locks of one lake; on a file system that is not local they do nothing."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self._jvm: Any = spark._jvm
        self._folder = Path(root, "_locks") if root.startswith("/") else None

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
                while lock is None:
                    time.sleep(_LOOK_EVERY)
                    lock = channel.tryLock()
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
    def table(self, name: str) -> Iterator[None]:
        """Hold a table for one transaction; others wait."""
        if self._folder is None:
            yield
            return
        channel, thread_lock = self._open(f"table-{name}")
        with thread_lock:
            lock = channel.lock()
            try:
                yield
            finally:
                lock.release()

    def _open(self, name: str) -> tuple[Any, threading.RLock]:
        assert self._folder is not None
        path = str(self._folder / f"{name}.lock")
        with _registry:
            if path not in _channels:
                self._folder.mkdir(parents=True, exist_ok=True)
                _channels[path] = self._jvm.java.io.RandomAccessFile(path, "rw").getChannel()
                _threads[path] = threading.RLock()
            return _channels[path], _threads[path]


def _describe(holder: Path) -> str:
    try:
        entry = json.loads(holder.read_text())
        return f"process {entry['pid']}, since {entry['since']}"
    except (OSError, ValueError, KeyError):
        return "by another process"
