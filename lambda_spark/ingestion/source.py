"""Interface of a source of events, which delivers lines grouped in parts (files, or messages of a Kafka partition)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import FIELDS
from lambda_spark.storage.checkpoints import Checkpoint

RAW_COLUMNS = ("source", "raw", "is_header", *FIELDS, "flaw")
"""Columns of the lines that every source returns.

`source` says where a line came from, `raw` is the line, and `is_header` says whether the line equals its file's header.
The nine fields of an event are texts. `flaw` names what is wrong with the whole line, or is null.
"""

KAFKA = "kafka:"
"""Prefix of a message's source, `kafka:topic/partition/offset`. No file URI begins with this prefix."""


@dataclass(frozen=True, slots=True)
class Part:
    """Group of lines that are counted together in one row of `ingestion_log`.

    A part is a file, or the messages of one Kafka partition in one micro-batch.
    """

    source: str
    """Name of the part in `ingestion_log`: a file's URI, or `kafka:topic/partition/first offset-last offset`."""
    path: str
    """Name of the part for people: a file's path, or `kafka:topic/partition`."""
    modified_at: datetime
    """When the file was last changed, or the newest message arrived."""
    bytes: int
    """Length of the file, or of the messages together, in bytes."""


@dataclass
class Delivery:
    """One micro-batch of files or messages that is to be ingested."""

    refused: dict[str, str] = field(default_factory=dict)
    """Files that could not be read at all: the URI of each, with the reason."""
    bytes: int = 0
    """Size of the micro-batch in bytes; 0 where the size is unknown before reading."""

    def lines(self) -> DataFrame:
        """Return every line of the parts that are not refused.

        Returns:
            One row per line, with `RAW_COLUMNS` and perhaps further columns.
        """
        raise NotImplementedError

    def refuse_unreadable(self, error: Exception) -> bool:
        """After reading all parts together failed, read each part alone and refuse those that fail.

        Args:
            error: The failure of reading all parts.

        Returns:
            Whether a part was refused. False means that no part was at fault.

        Raises:
            LambdaSparkError: A part failed for a reason that may pass, such as a full disk.
        """
        return False

    def parts(self, inspected: DataFrame) -> dict[str, Part]:
        """Describe the parts of this micro-batch.

        Args:
            inspected: The validated lines of all parts that could be read.

        Returns:
            Each part, by the name that `part_of` returns for its lines.
        """
        raise NotImplementedError


class Source(Protocol):
    """Place that events come from. Each source has a stream, a checkpoint and an application id of its own."""

    name: str
    """Name of the stream, of its checkpoint's folder and of its lock."""
    application_key: str
    """Property of `events` that holds the stream's application id."""
    unit: str
    """Word for the source's parts in log messages, such as `files`."""
    checkpoint_parts: tuple[str, ...]
    """Folders of the checkpoint that record what has been read."""

    def stream(self) -> DataFrame:
        """Return the stream of new files or messages."""
        ...

    def delivery(self, batch: DataFrame, checkpoint: Checkpoint, batch_id: int) -> Delivery:
        """Return the files or messages of one micro-batch of the stream."""
        ...


def part_of(source: Column) -> Column:
    """Return the part that a line belongs to: its file, or its message's topic and partition without the offset."""
    return F.when(F.startswith(source, F.lit(KAFKA)), F.regexp_replace(source, "/[0-9]+$", "")).otherwise(source)
