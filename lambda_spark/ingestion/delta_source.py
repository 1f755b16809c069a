"""A Delta table as a source of events: its present rows, and then those that later versions append."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lambda_spark.errors import UsageError
from lambda_spark.ingestion.field_mapping import INTERNAL, FieldMapping
from lambda_spark.ingestion.file_source import check_apart
from lambda_spark.ingestion.records import raw_rows
from lambda_spark.ingestion.source import Delivery, Part
from lambda_spark.settings import IngestSettings, size_in_bytes
from lambda_spark.storage.checkpoints import APPLICATION, PLANNED, Checkpoint
from lambda_spark.storage.file_system import FileSystem
from lambda_spark.storage.lake import Lake


def is_delta_table(lake: Lake, source: str) -> bool:
    """Whether a source is the folder of a Delta table."""
    return FileSystem(lake.spark, source).exists("_delta_log")


class DeltaSource:
    """The rows of a Delta table as a source of events.

    Rows that are updated or deleted later are not read again: their first reading stays.

    Raises:
        UsageError: The table belongs to the lake itself, or it lacks columns that the description names.
    """

    unit = "tables"
    checkpoint_parts: tuple[str, ...] = (PLANNED,)

    def __init__(self, lake: Lake, source: str, settings: IngestSettings, mapping: FieldMapping) -> None:
        files = FileSystem(lake.spark, source)
        check_apart(lake, source, files)
        self._lake = lake
        self._root = files.root
        self._settings = settings
        self.mapping = mapping
        key = hashlib.sha256(self._root.encode()).hexdigest()[:16]
        self.name = f"ingest-delta-{key}"
        self.application_key = f"{APPLICATION}.delta.{key}"
        columns = lake.spark.read.format("delta").load(self._root).columns
        try:
            mapping.columns_in(columns)
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from None

    def stream(self) -> DataFrame:
        """Return the stream of the table's rows."""
        return (
            self._lake.spark.readStream.format("delta")
            .option("skipChangeCommits", "true")
            .option("maxBytesPerTrigger", size_in_bytes(self._settings.max_bytes_per_batch, "max_bytes_per_batch"))
            .load(self._root)
        )

    def delivery(self, batch: DataFrame, checkpoint: Checkpoint, batch_id: int) -> Delivery:
        """Return the rows of one micro-batch."""
        return _RowDelivery(batch, self._root, self.mapping)


class _RowDelivery(Delivery):
    """The rows of one micro-batch, counted together under the table's path."""

    def __init__(self, batch: DataFrame, root: str, mapping: FieldMapping) -> None:
        super().__init__(mapping)
        self._batch = batch
        self._root = root

    def lines(self) -> DataFrame:
        needed = self.mapping.columns_in(self._batch.columns)
        names = [f"`{name}`" for name in self._batch.columns]
        records = self._batch.select(
            F.lit(self._root).alias(f"{INTERNAL}source"),
            F.to_json(F.struct(*names)).alias(f"{INTERNAL}raw"),
            F.lit(False).alias(f"{INTERNAL}is_header"),
            F.lit(None).cast("string").alias(f"{INTERNAL}flaw"),
            *(F.col(f"`{column}`").alias(name) for name, column in needed.items()),
        )
        return raw_rows(self.mapping.fields(records))

    def parts(self, inspected: DataFrame) -> dict[str, Part]:
        return {self._root: Part(self._root, self._root, datetime.now(UTC), 0)}
