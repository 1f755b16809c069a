"""Event files as a source of events.

Spark's file stream finds new files and remembers which files it has seen. This module reads the content of these files.
Files with the same format and columns are read together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import UsageError
from lambda_spark.ingestion.field_mapping import FieldMapping
from lambda_spark.ingestion.file_formats import (
    FileGroup,
    Layout,
    UnreadableFileError,
    layout_of,
    read_group,
    unreadable,
)
from lambda_spark.ingestion.source import Delivery, Part
from lambda_spark.settings import IngestSettings, size_in_bytes
from lambda_spark.source_description import DESCRIBED_FIELDS
from lambda_spark.spark import literal_rows
from lambda_spark.storage.checkpoints import APPLICATION, FILES, PLANNED, Checkpoint, files_planned
from lambda_spark.storage.file_system import FileSystem, escape_glob
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import INGESTION_LOG

_NEVER_FORGET = "36500d"
"""Value of Spark's option `maxFileAge`, set so high that Spark's file stream ignores no file.

By default, Spark ignores files that are 7 days older than the newest file. One file with a modification time in the
future would then hide all other files.
"""

_FILE_COLUMNS = "path string, modificationTime timestamp, length bigint, content binary"


class FileSource:
    """Folders and files as a source of events.

    Raises:
        UsageError: No source is named, a source does not exist, or the sources cannot be read together.
    """

    name = "ingest"
    application_key = APPLICATION
    unit = "files"
    checkpoint_parts: tuple[str, ...] = (PLANNED, FILES)

    def __init__(self, lake: Lake, sources: list[str], settings: IngestSettings, mapping: FieldMapping) -> None:
        self._lake = lake
        self.mapping = mapping
        self._settings = settings
        self._pattern = _source_pattern(lake, sources)

    def stream(self) -> DataFrame:
        """Return the stream of new files with `path`, `modificationTime` and `length`, without their content."""
        max_bytes = size_in_bytes(self._settings.max_bytes_per_batch, "ingest.max_bytes_per_batch")
        return (
            self._lake.spark.readStream.format("binaryFile")
            .schema(_FILE_COLUMNS)
            .option("recursiveFileLookup", "true")
            .option("maxFileAge", _NEVER_FORGET)
            .option("maxBytesPerTrigger", max_bytes)
            .load(self._pattern)
            .select("path", "modificationTime", "length")
        )

    def delivery(self, batch: DataFrame, checkpoint: Checkpoint, batch_id: int) -> Delivery:
        """Return the files of one micro-batch, except files that match the setting `ingest.exclude`."""
        files = batch.collect()
        planned = files_planned(self._lake, checkpoint, batch_id)
        if len(planned) > len(files):
            # Add the files that the checkpoint lists but Spark left out. Spark leaves out empty and deleted files.
            delivered = {file.path for file in files}
            modified_by_path = {self._path(uri): modified_at for uri, modified_at in planned.items()}
            files += [
                Row(path=path, modificationTime=modified_at, length=0)
                for path, modified_at in modified_by_path.items()
                if path not in delivered
            ]
        included = [file for file in files if not is_excluded(file.path, self._settings.exclude)]
        return _FileDelivery(self._lake.spark, included, self.mapping)

    def _path(self, uri: str) -> str:
        jvm: Any = self._lake.spark._jvm
        return str(jvm.org.apache.hadoop.fs.Path(jvm.java.net.URI(uri)).toString())

    def present(self) -> set[str]:
        """Return the paths of the files that exist now."""
        return {row.path for row in self._present().select("path").collect()}

    def stale(self, at_start: Set[str]) -> list[Row]:
        """Find files that Spark will not read again, although reading them would give something else now.

        Such a file changed after Spark had read it, or was empty when Spark first saw it. Or it was refused under
        another source description. Files that appeared during this run are left out, because the next run reads them.

        Args:
            at_start: Paths of the files that existed when this run started.

        Returns:
            Rows with `path`, `modificationTime`, `length` and `was_refused`, sorted by path. Files that match the
            setting `ingest.exclude` are left out.
        """
        present = self._present().select("path", "modificationTime", "length")
        known = (
            self._lake[INGESTION_LOG]
            .read()
            .groupBy(_decoded(F.col("source")).alias("path"))
            .agg(
                F.max("modified_at").alias("modified_at"),
                F.max_by("bytes", "ingested_at").alias("bytes"),
                F.max_by("refused", "ingested_at").alias("refused"),
                F.max_by("source_description", "ingested_at").alias("description"),
            )
        )
        changed = (F.col("length") != F.col("bytes")) | (F.col("modificationTime") > F.col("modified_at"))
        was_empty = F.col("bytes").isNull() & (F.col("length") > 0)
        was_refused = F.coalesce(
            F.col("refused") & (F.col("description") != self.mapping.description.hash), F.lit(False)
        )
        rows = present.join(known, on="path", how="left").where(changed | was_empty | was_refused).orderBy("path")
        candidates = rows.select(
            "path", "modificationTime", "length", was_refused.alias("was_refused"), F.col("bytes").isNull().alias("new")
        ).collect()
        return [
            row
            for row in candidates
            if (row.path in at_start or not row.new) and not is_excluded(row.path, self._settings.exclude)
        ]

    def delivery_of(self, files: list[Row]) -> Delivery:
        """Return given files, which `stale` found, as a micro-batch."""
        return _FileDelivery(self._lake.spark, files, self.mapping)

    def _present(self) -> DataFrame:
        return self._lake.spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(self._pattern)


def is_excluded(path: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches the name or the path of a file.

    Args:
        path: Path of the file, with or without the prefix `file:`.
        patterns: Patterns with `*`, `?` and `[…]` as in a shell, such as the patterns in `ingest.exclude`.
    """
    path = path.removeprefix("file:")
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (path, path.rsplit("/", 1)[-1]))


class _FileDelivery(Delivery):
    """The new files of one micro-batch. The lines of each file are counted together, under the file's URI."""

    def __init__(self, spark: SparkSession, files: list[Row], mapping: FieldMapping) -> None:
        super().__init__(mapping, bytes=sum(row.length for row in files))
        self._spark = spark
        self._files = {self._uri(row.path): row for row in files}
        groups: dict[Layout, FileGroup] = {}
        for uri, file in self._files.items():
            try:
                layout = layout_of(spark, file.path, mapping)
                groups.setdefault(layout, FileGroup(layout)).paths.append(file.path)
            except UnreadableFileError as error:
                self.refused[uri] = str(error)
        self._groups = list(groups.values())

    def lines(self) -> DataFrame:
        readable = [read_group(self._spark, group, self.mapping) for group in self._groups if group.paths]
        if not readable:
            texts = ", ".join(f"{name}: string" for name in DESCRIBED_FIELDS)
            schema = f"source: string, raw: string, is_header: boolean, {texts}, flaw: string, position: int"
            readable = [literal_rows(self._spark, [], schema)]
        return reduce(DataFrame.unionByName, readable)

    def refuse_unreadable(self, error: Exception) -> bool:
        any_refused = False
        for group in self._groups:
            for path in list(group.paths):
                try:
                    # Read the file without a shuffle, because a shuffle writes to disk and would fail on a full disk.
                    read_group(self._spark, FileGroup(group.layout, [path]), self.mapping).write.format("noop").mode(
                        "append"
                    ).save()
                except Exception as failure:
                    reason = unreadable(path, failure)
                    if not isinstance(reason, UnreadableFileError):
                        raise reason from failure
                    group.paths.remove(path)
                    self.refused[self._uri(path)] = str(reason)
                    any_refused = True
        return any_refused

    def parts(self, inspected: DataFrame) -> dict[str, Part]:
        return {uri: Part(uri, file.path, file.modificationTime, file.length) for uri, file in self._files.items()}

    def _uri(self, path: str) -> str:
        return str(self._spark._jvm.org.apache.hadoop.fs.Path(path).toUri().toString())  # type: ignore[union-attr]


def _source_pattern(lake: Lake, sources: list[str]) -> str:
    """Return one glob pattern that matches all sources."""
    if not sources:
        raise UsageError("no source is named: name folders or files, or set ingest.source in the settings")
    roots = []
    for source in sources:
        files = FileSystem(lake.spark, source)
        if not files.exists():
            raise UsageError(f"{source}: no such file or folder")
        if files.is_local and files.is_folder() and not lake.files.is_local:
            raise UsageError(
                f"{source} is a local folder, but the lake is not local, so the workers could not read the folder. "
                "Name a folder that every worker can read"
            )
        check_apart(lake, source, files)
        roots.append(files.path().toUri().getPath() if files.is_local else files.root)
    if len(roots) == 1:
        return escape_glob(roots[0])
    if not all(root.startswith("/") for root in roots):
        raise UsageError("several sources must be on the local file system. Name their common folder instead")
    # Replace braces in paths by the wildcard `?`. Hadoop does not understand an escaped brace within braces.
    parts = [re.sub(r"[{}]", "?", root.lstrip("/")) for root in roots]
    return "file:///{" + ",".join(re.sub(r"([\[\]*\\,])", r"\\\1", part) for part in parts) + "}"


def check_apart(lake: Lake, source: str, files: FileSystem) -> None:
    """Refuse a source that contains the lake, or that is a part of the lake.

    Raises:
        UsageError: The next run would take the lake's own files for a delivery.
    """
    folders = [str(place.path().toUri().getPath()).rstrip("/") for place in (files, lake.files)]
    if files.is_local and lake.files.is_local:
        folders = [str(Path(folder).resolve()) for folder in folders]
    elif files.is_local or lake.files.is_local:
        return
    one, other = (f"{folder.rstrip('/')}/" for folder in folders)
    if other.startswith(one) or one.startswith(other):
        raise UsageError(
            f"{source} and the lake {lake.path} lie in one another, so the next run would read the lake as events. "
            "Name the event files or their own folder, or another --lake"
        )


def _decoded(uri: Column) -> Column:
    """Decode a URI, but keep its plus signs. Spark's `url_decode` alone would turn plus signs into spaces."""
    return F.url_decode(F.replace(uri, F.lit("+"), F.lit("%2B")))
