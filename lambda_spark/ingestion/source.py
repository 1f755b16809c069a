"""Interface of a source of events, such as files or a Kafka topic.

A source delivers lines in parts. A part is a file, or the messages of one Kafka partition in one micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.ingestion.field_mapping import FieldMapping
from lambda_spark.source_description import DESCRIBED_FIELDS
from lambda_spark.storage.checkpoints import Checkpoint

RAW_COLUMNS = ("source", "raw", "is_header", *DESCRIBED_FIELDS, "flaw", "position")
"""Columns of the lines that every source returns.

`source` says where a record came from. `raw` is its line, or its own part of a line with several JSON values.
`is_header` says whether the line equals the file's header. The fields of an event are texts. `flaw` names what is wrong
with the record as a whole, or is null. `position` is the number of an exploded array's element, else null.
"""

KAFKA = "kafka:"
"""Prefix of `source` for a Kafka message: `kafka:topic/partition/offset`. No file URI begins with this prefix."""


@dataclass(frozen=True, slots=True)
class Part:
    """File, or messages of one Kafka partition in one micro-batch.

    The lines of a part are counted together in one row of `ingestion_log`.
    """

    source: str
    """Name of the part in `ingestion_log`: a file's URI, or `kafka:topic/partition/first offset-last offset`."""
    path: str
    """Name of the part for people: a file's path, or `kafka:topic/partition`."""
    modified_at: datetime
    """Time when the file was last changed, or when the newest message arrived."""
    bytes: int
    """Length of the file, or of the messages together, in bytes."""


@dataclass
class Delivery:
    """One micro-batch of files or messages that is to be ingested."""

    mapping: FieldMapping
    """Which of the source's columns is which field of an event."""
    refused: dict[str, str] = field(default_factory=dict)
    """Files that could not be read at all. Each URI maps to the reason."""
    bytes: int = 0
    """Size of the micro-batch in bytes. 0 if the size is unknown before the lines are read."""

    def lines(self) -> DataFrame:
        """Return all lines of this micro-batch, except those of files that could not be read.

        Returns:
            One row per line, with `RAW_COLUMNS` and perhaps further columns.
        """
        raise NotImplementedError

    def refuse_unreadable(self, error: Exception) -> bool:
        """Find the files that cannot be read, and leave them out of this micro-batch.

        This method is called after reading all files together has failed. It reads each file alone.

        Args:
            error: The exception that reading all files raised.

        Returns:
            Whether a file was left out. False means that no file was at fault.

        Raises:
            LambdaSparkError: A file could not be read for a temporary reason, such as a full disk.
        """
        return False

    def parts(self, inspected: DataFrame) -> dict[str, Part]:
        """Describe the files or Kafka partitions of this micro-batch.

        Args:
            inspected: The validated lines of all files or messages that could be read.

        Returns:
            A description of each file or partition. Its key is the name that `part_of` returns for its lines.
        """
        raise NotImplementedError


class Source(Protocol):
    """Place that events come from. Each source has its own stream, checkpoint and application id."""

    name: str
    """Common name of the stream, the checkpoint folder and the lock."""
    application_key: str
    """Property of `events` that holds the stream's application id."""
    unit: str
    """Word for what log messages count: `files` or `partitions`."""
    mapping: FieldMapping
    """Which of the source's columns is which field of an event."""
    checkpoint_parts: tuple[str, ...]
    """Folders of the checkpoint in which Spark records what the stream has read."""

    def stream(self) -> DataFrame:
        """Return the stream of new files or messages."""
        ...

    def delivery(self, batch: DataFrame, checkpoint: Checkpoint, batch_id: int) -> Delivery:
        """Return the files or messages of one micro-batch of the stream."""
        ...


def part_of(source: Column) -> Column:
    """Return a line's file URI, or `kafka:topic/partition` for a Kafka message.

    Lines with the same result belong to the same part of the micro-batch.
    """
    return F.when(F.startswith(source, F.lit(KAFKA)), F.regexp_replace(source, "/[0-9]+$", "")).otherwise(source)
