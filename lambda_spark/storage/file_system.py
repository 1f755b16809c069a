"""The file system of a lake or a source, local or not, by Hadoop's own classes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from lambda_spark.errors import UsageError


@dataclass(frozen=True, slots=True)
class File:
    """A file's length and when it was last written (UTC)."""

    bytes: int
    modified_at: datetime


class FileSystem:
    """Files below one root folder. `root` is a plain absolute path on a local file system, else a URI.

    Raises UsageError where Hadoop knows no such file system, or cannot reach it.
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        jvm: Any = spark._jvm
        self._jvm = jvm
        self._configuration = spark._jsc.hadoopConfiguration()
        path = jvm.org.apache.hadoop.fs.Path(root)
        try:
            self.hadoop = path.getFileSystem(self._configuration)
        except Py4JJavaError as error:
            reason = str(error.java_exception.getMessage() or error.java_exception).splitlines()[0]
            raise UsageError(
                f"{root}: there is no way to its file system: {reason}; its jars and settings come in by "
                "SPARK_SUBMIT_OPTIONS (see the README, On a cluster)"
            ) from error
        qualified = self.hadoop.makeQualified(path)
        self.is_local = qualified.toUri().getScheme() == "file"
        self.root: str = qualified.toUri().getPath() if self.is_local else qualified.toString()

    def path(self, relative: str = "") -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(f"{self.root}/{relative}" if relative else self.root)

    def exists(self, relative: str = "") -> bool:
        return bool(self.hadoop.exists(self.path(relative)))

    def is_folder(self, relative: str = "") -> bool:
        return self.exists(relative) and bool(self.hadoop.getFileStatus(self.path(relative)).isDirectory())

    def list(self, relative: str = "") -> list[str]:
        """The names of what lies directly in a folder; empty where there is none."""
        if self.is_local:
            # Python's own listing: Hadoop's hands every name over in calls of its own, and a log has thousands.
            folder = Path(self.root, relative)
            return sorted(os.listdir(folder)) if folder.is_dir() else []
        if not self.exists(relative):
            return []
        return sorted(status.getPath().getName() for status in self.hadoop.listStatus(self.path(relative)))

    def size(self, relative: str) -> int:
        """The length of a file in bytes."""
        return int(self.hadoop.getFileStatus(self.path(relative)).getLen())

    def walk(self, relative: str) -> dict[str, File]:
        """Every file in a folder and its folders, by its path below the folder."""
        # Folder by folder: Hadoop's own recursive listing starts a process for each local file, for its owner's name.
        found: dict[str, File] = {}
        for status in self.hadoop.listStatus(self.path(relative)):
            name = status.getPath().getName()
            if status.isDirectory():
                found |= {f"{name}/{path}": file for path, file in self.walk(f"{relative}/{name}").items()}
            else:
                modified = datetime.fromtimestamp(status.getModificationTime() / 1000, UTC)
                found[name] = File(status.getLen(), modified)
        return found

    def read_text(self, relative: str) -> str:
        stream = self.hadoop.open(self.path(relative))
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def delete(self, relative: str = "") -> None:
        self.hadoop.delete(self.path(relative), True)


def escape_glob(path: str) -> str:
    """A path in which no character is read as a pattern."""
    return re.sub(r"([\[\]{}*?\\,])", r"\\\1", path)
