"""The file system of a lake or a source, local or remote, accessed through Hadoop's classes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from lambda_spark.errors import LakeError, UsageError


@dataclass(frozen=True, slots=True)
class File:
    """Facts about one file: its length, and the time of its last change."""

    bytes: int
    modified_at: datetime
    """Time (UTC) at which the file was last written."""


class FileSystem:
    """Access to the files below one root folder.

    All methods take paths relative to the root folder. The attribute `root` is the folder's absolute path on a local
    file system. On any other file system, `root` is the folder's URI.

    Args:
        spark: The session whose Hadoop configuration applies.
        root: The root folder, as a path or a URI.

    Raises:
        UsageError: Hadoop does not know the file system of the root folder, or cannot reach this file system.
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
                f"{root}: unknown or unreachable file system ({reason}). Add the connector's jars and settings with "
                "SPARK_SUBMIT_OPTIONS (see the README, On a cluster)."
            ) from error
        qualified = self.hadoop.makeQualified(path)
        self.is_local = qualified.toUri().getScheme() == "file"
        self.root: str = qualified.toUri().getPath() if self.is_local else qualified.toString()

    def path(self, relative: str = "") -> Any:
        """Return a path as Hadoop's `Path` object."""
        return self._jvm.org.apache.hadoop.fs.Path(f"{self.root}/{relative}" if relative else self.root)

    def exists(self, relative: str = "") -> bool:
        """Whether a file or folder exists."""
        return bool(self.hadoop.exists(self.path(relative)))

    def is_folder(self, relative: str = "") -> bool:
        """Whether a folder exists."""
        return self.exists(relative) and bool(self.hadoop.getFileStatus(self.path(relative)).isDirectory())

    def list(self, relative: str = "") -> list[str]:
        """Return the sorted names of the files and folders directly in a folder. Empty if there is no such folder."""
        if self.is_local:
            # List local folders with Python, because a table's log has thousands of files. Hadoop's listing needs
            # several calls from Python to Java for every file.
            folder = Path(self.root, relative)
            return sorted(os.listdir(folder)) if folder.is_dir() else []
        if not self.exists(relative):
            return []
        return sorted(status.getPath().getName() for status in self.hadoop.listStatus(self.path(relative)))

    def size(self, relative: str) -> int:
        """Return the length of a file in bytes."""
        return int(self.hadoop.getFileStatus(self.path(relative)).getLen())

    def walk(self, relative: str) -> dict[str, File]:
        """Find all files in a folder and its subfolders.

        Returns:
            A dictionary from the path of each file, relative to the folder, to the file's length and time.
        """
        # List one folder at a time. Hadoop's recursive listing is slow, because it starts a process for each local file
        # to find the file's owner.
        files: dict[str, File] = {}
        for status in self.hadoop.listStatus(self.path(relative)):
            name = status.getPath().getName()
            if status.isDirectory():
                files |= {f"{name}/{path}": file for path, file in self.walk(f"{relative}/{name}").items()}
            else:
                modified = datetime.fromtimestamp(status.getModificationTime() / 1000, UTC)
                files[name] = File(status.getLen(), modified)
        return files

    def read_text(self, relative: str) -> str:
        """Return the content of a UTF-8 file."""
        stream = self.hadoop.open(self.path(relative))
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def rename(self, relative: str, new: str) -> None:
        """Rename a folder.

        Local file systems and HDFS rename a folder in one step. Object stores copy the folder file by file.

        Raises:
            LakeError: The file system did not rename the folder.
        """
        if not self.hadoop.rename(self.path(relative), self.path(new)):
            raise LakeError(f"{self.root}/{relative} could not be renamed to {new}; is the folder writable?")

    def delete(self, relative: str = "") -> None:
        """Delete a file, or a folder with its content. A path that does not exist is no error."""
        self.hadoop.delete(self.path(relative), True)


def escape_glob(path: str) -> str:
    """Escape the wildcards in a path, so that Hadoop reads it as the path of one file or folder."""
    return re.sub(r"([\[\]{}*?\\,])", r"\\\1", path)
