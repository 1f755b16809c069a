"""Locks of a lake: one process per job kind, one writer per table.

They are file locks held by the JVM that writes, so that they end with it, however it ends. They work on a local file
system; elsewhere one scheduler must own the lake.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from lambda_spark.errors import JobRunningError

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
    def job(self, name: str) -> Iterator[None]:
        """Hold a job kind for as long as it runs. Raises JobRunningError where another process holds it."""
        if self._folder is None:
            yield
            return
        channel, thread_lock = self._open(f"job-{name}")
        with thread_lock:
            lock = channel.tryLock()
            holder = self._folder / f"job-{name}.json"
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
