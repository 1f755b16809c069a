"""What a source owes to ingestion, be it files or a Kafka topic: rows of raw fields, and what they came in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lambda_spark.event_format import FIELDS
from lambda_spark.storage.checkpoints import Checkpoint

RAW_COLUMNS = ("source", "raw", "is_header", *FIELDS, "flaw")
"""What every reader returns: where a line came from, it, whether it equals the header, nine texts, its flaw or null."""

KAFKA = "kafka:"
"""What the source of a message begins with: `kafka:topic/partition/offset`. No file's URI does."""


@dataclass(frozen=True, slots=True)
class Part:
    """What lines are accounted by, a row of `ingested_files`: a file, or a micro-batch's share of a Kafka partition."""

    source: str
    """As `ingested_files` names it: a file's URI, or `kafka:topic/partition/first-last` with two offsets."""
    path: str
    """As a person knows it."""
    modified_at: datetime
    """When the file was changed, or the newest of the messages arrived."""
    bytes: int


@dataclass
class Delivery:
    """One micro-batch of files or messages on its way in."""

    refused: dict[str, str] = field(default_factory=dict)
    """Part: why it could not be read as a whole."""
    bytes: int = 0
    """Its size, where it is known before it is read."""

    def lines(self) -> DataFrame:
        """Every line of what is not refused, with at least `RAW_COLUMNS`."""
        raise NotImplementedError

    def refuse_unreadable(self, error: Exception) -> bool:
        """After reading failed: refuse the parts that fail when read alone. False where it is no part's fault."""
        return False

    def parts(self, inspected: DataFrame) -> dict[str, Part]:
        """The parts by `part_of` their lines' sources; `inspected` has the lines of all that could be read."""
        raise NotImplementedError


class Source(Protocol):
    """Where events come from, for good: a stream of its own, with its checkpoint and application id."""

    name: str
    """The stream's name: that of its checkpoint's folder and of its lock."""
    application_key: str
    """The property of `events` that holds the stream's application id."""
    unit: str
    """What its parts are called."""
    checkpoint_parts: tuple[str, ...]
    """The folders of its checkpoint in which it says what has been read."""

    def stream(self) -> DataFrame: ...

    def delivery(self, batch: DataFrame, checkpoint: Checkpoint, batch_id: int) -> Delivery: ...


def part_of(source: Column) -> Column:
    """The part that a line's source lies in: a file is its own, a message's offset is left out."""
    return F.when(F.startswith(source, F.lit(KAFKA)), F.regexp_replace(source, "/[0-9]+$", "")).otherwise(source)
