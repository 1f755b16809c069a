"""Interface of a source of events: it delivers rows of raw fields, and the parts that these rows arrived in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import FIELDS
from lambda_spark.storage.checkpoints import Checkpoint

RAW_COLUMNS = ("source", "raw", "is_header", *FIELDS, "flaw")
"""Columns that every reader returns.

`source` says where a line came from, `raw` is the line, and `is_header` says whether the line equals its file's header.
The nine fields are texts. `flaw` names what is wrong with the whole line, or is null.
"""

KAFKA = "kafka:"
"""Prefix of a message's source, `kafka:topic/partition/offset`. No URI of a file begins with it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Unit in which lines are accounted for: a row of `ingestion_log`.

    A part is a file, or the messages of one Kafka partition in one micro-batch.
    """

    source: str
    """Name of the part in `ingestion_log`: a file's URI, or `kafka:topic/partition/first-last` with two offsets."""
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
    """Parts that could not be read at all, by the URI of the file, each with the reason."""
    bytes: int = 0
    """Size of the micro-batch; 0 where it is unknown before reading."""

    def lines(self) -> DataFrame:
        """Return every line of the parts that are not refused.

        Returns:
            One row per line, with `RAW_COLUMNS` and perhaps further columns.
        """
        raise NotImplementedError

    def refuse_unreadable(self, error: Exception) -> bool:
        """Refuse the parts that fail when they are read alone. Call it after reading all of them failed.

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
            The parts, by the name that `part_of` gives for their lines.
        """
        raise NotImplementedError


class Source(Protocol):
    """Place that events come from. Each source has a stream, a checkpoint and an application id of its own."""

    name: str
    """Name of the stream, of its checkpoint's folder and of its lock."""
    application_key: str
    """Property of `events` that holds the stream's application id."""
    unit: str
    """Word for the source's parts in a line of progress."""
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
