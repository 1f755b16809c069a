"""A Kafka topic as a source of events. Messages hold JSON, or lines of CSV, as the source description says.

Spark's Kafka connector reads the topic and keeps the offsets in the stream's checkpoint. The connector commits no
offsets to a consumer group, so two readers of a topic never take messages from each other.

Security options (TLS, SASL) come from a Kafka client properties file, not from the settings of this project. Their
values go only to Kafka and are never printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import KafkaError, UsageError, root_cause
from lambda_spark.event_format import FIELDS
from lambda_spark.ingestion.field_mapping import INTERNAL, FieldMapping
from lambda_spark.ingestion.records import csv_records, json_records, raw_rows
from lambda_spark.ingestion.source import KAFKA, Delivery, Part, part_of
from lambda_spark.settings import KafkaSettings
from lambda_spark.storage.checkpoints import APPLICATION, PLANNED, Checkpoint

_ANSWER_WITHIN_MS = 15_000
_FROM_START = (
    "Add `--from-start` to read the topic from its earliest offset. "
    "Messages that the lake already has are dropped as repeats"
)
_APPLICATIONS = f"{APPLICATION}.kafka."
"""Prefix of the properties of `events` that hold the application ids of topics. The topic's name follows."""


def stream_name(topic: str) -> str:
    """Return the common name of a topic's stream, checkpoint folder and lock."""
    return f"ingest-kafka-{topic}"


def topics_read(properties: Iterable[str]) -> list[str]:
    """List the topics that a lake has ingested.

    Args:
        properties: Names of the properties of `events`.
    """
    return sorted(key.removeprefix(_APPLICATIONS) for key in properties if key.startswith(_APPLICATIONS))


class KafkaSource:
    """The messages of one topic as a source of events.

    Raises:
        UsageError: No topic or no server is named, or the file of client properties cannot be read.
    """

    unit = "partitions"
    checkpoint_parts: tuple[str, ...] = (PLANNED,)

    def __init__(self, spark: SparkSession, settings: KafkaSettings, mapping: FieldMapping) -> None:
        if not settings.bootstrap_servers or not settings.topic:
            raise UsageError(
                "--source kafka needs --bootstrap-servers and --topic (or the settings "
                "kafka.bootstrap_servers and kafka.topic)"
            )
        self._spark = spark
        self._settings = settings
        self.mapping = mapping
        self._options = {**_client_properties(spark, settings), "bootstrap.servers": settings.bootstrap_servers}
        self.name = stream_name(settings.topic)
        self.application_key = f"{_APPLICATIONS}{settings.topic}"
        self.id_key = f"topic_id.kafka.{settings.topic}"
        """Property of `events` that holds Kafka's id of the topic. A topic that is created again has a new id."""

    def look_up(self) -> str:
        """Ask Kafka for the topic's id.

        Raises:
            UsageError: The topic does not exist.
            KafkaError: No broker answers, or Kafka refuses to answer.
        """
        jvm: Any = self._spark._jvm
        properties = jvm.java.util.Properties()
        limits = {"default.api.timeout.ms": str(_ANSWER_WITHIN_MS), "request.timeout.ms": str(_ANSWER_WITHIN_MS)}
        for key, value in {**limits, **self._options}.items():
            properties.setProperty(key, value)
        topic, servers = self._settings.topic, self._settings.bootstrap_servers
        try:
            admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(properties)
            try:
                names = jvm.java.util.Collections.singletonList(topic)
                return str(admin.describeTopics(names).allTopicNames().get().get(topic).topicId().toString())
            finally:
                admin.close()
        except Py4JJavaError as error:
            reason = self._without_secrets(root_cause(error))
            # Hide the causes of the error with `from None`, because they may quote secret options.
            if reason.startswith("UnknownTopicOrPartition"):
                raise UsageError(f"there is no topic '{topic}' at {servers}. Create it, or name another") from None
            raise KafkaError(
                f"Kafka at {servers} cannot be asked about topic '{topic}' ({reason}). Check that the servers are up "
                "and reachable, and that the client's properties are right (kafka.properties_file)"
            ) from None

    def stream(self) -> DataFrame:
        """Return the stream of new messages. A stream without a checkpoint starts at the earliest offset."""
        options = {f"kafka.{key}": value for key, value in self._options.items()}
        return (
            self._spark.readStream.format("kafka")
            .options(**options)
            .option("subscribe", self._settings.topic)
            .option("startingOffsets", "earliest")
            .option("maxOffsetsPerTrigger", self._settings.max_messages_per_batch)
            .load()
            .select("topic", "partition", "offset", "timestamp", "value")
        )

    def delivery(self, batch: DataFrame, checkpoint: Checkpoint, batch_id: int) -> Delivery:
        """Return the messages of one micro-batch."""
        return _MessageDelivery(batch, self.mapping)

    def was_recreated(self) -> KafkaError:
        """Return the error for a topic that was created again. Its name is known, but its id is new."""
        return KafkaError(
            f"topic '{self._settings.topic}' at {self._settings.bootstrap_servers} is not the one that this lake has "
            f"read. It was deleted and created again, or it belongs to another cluster. {_FROM_START}"
        )

    @contextmanager
    def errors_in_one_line(self) -> Iterator[None]:
        """Turn an error of Kafka or its connector into a one-line error that says what to do.

        Raises:
            KafkaError: Kafka stopped answering, or Kafka no longer has unread messages. Other errors stay unchanged.
        """
        try:
            yield
        except Exception as error:
            reason = self._without_secrets(root_cause(error))
            text = f"{reason} {error}"
            topic, servers = self._settings.topic, self._settings.bootstrap_servers
            if "OffsetOutOfRange" in text or "data may have been" in text or "KAFKA_DATA_LOSS" in text:
                raise KafkaError(
                    f"unread messages of topic '{topic}' are gone: Kafka deleted them (retention), or the topic was "
                    f"deleted and created again ({reason}). {_FROM_START}"
                ) from None
            if "org.apache.kafka" in text or "TimeoutException" in text:
                raise KafkaError(
                    f"Kafka at {servers} stopped answering for topic '{topic}' ({reason}). Nothing is lost: "
                    "start this job again once Kafka is back"
                ) from None
            raise

    def _without_secrets(self, text: str) -> str:
        for key, value in self._options.items():
            if value and key != "bootstrap.servers":
                text = text.replace(value, "…")
        return text


class _MessageDelivery(Delivery):
    """The messages of one micro-batch."""

    def __init__(self, batch: DataFrame, mapping: FieldMapping) -> None:
        super().__init__(mapping)
        self._batch = batch

    def lines(self) -> DataFrame:
        # Treat a message without a value as an empty line, so that the message is rejected like an empty line.
        value = F.coalesce(F.col("value"), F.lit(b""))
        # Confluent's serializers put a byte 0 and the number of a schema (4 bytes) before the text.
        text = F.when(F.startswith(value, F.lit(b"\0")), F.substring(value, 6, 2**31 - 1)).otherwise(value)
        columns = {
            "source": F.concat_ws("/", F.concat(F.lit(KAFKA), F.col("topic")), "partition", "offset"),
            # Keep values that are not valid UTF-8, because they are reported as a flaw.
            "raw": text.cast("string"),
            "is_header": F.lit(False),
            "message": F.col("offset"),
            "arrived_at": F.col("timestamp"),
            "bytes": F.octet_length(value),
        }
        lines = self._batch.select(*(column.alias(f"{INTERNAL}{name}") for name, column in columns.items()))
        description = self.mapping.description
        if description.format != "csv":
            return raw_rows(self.mapping.fields(json_records(lines, self.mapping)))
        names = description.columns or FIELDS
        records = csv_records(lines, names, self.mapping.columns_in(names), description, description.delimiter)
        return raw_rows(self.mapping.fields(records))

    def parts(self, inspected: DataFrame) -> dict[str, Part]:
        # Count each message once, although it may hold several records.
        messages = inspected.select("source", "message", "arrived_at", "bytes").distinct()
        ranges = (
            messages.groupBy(part_of(F.col("source")).alias("part"))
            .agg(
                F.min("message").alias("first"),
                F.max("message").alias("last"),
                F.max("arrived_at").alias("newest"),
                F.sum("bytes").alias("bytes"),
            )
            .collect()
        )
        return {row.part: Part(f"{row.part}/{row.first}-{row.last}", row.part, row.newest, row.bytes) for row in ranges}


def _client_properties(spark: SparkSession, settings: KafkaSettings) -> dict[str, str]:
    """Read the Kafka client properties file with Java's parser. Return no properties if the settings name no file."""
    if not settings.properties_file:
        return {}
    jvm: Any = spark._jvm
    properties = jvm.java.util.Properties()
    try:
        file = jvm.java.io.FileInputStream(settings.properties_file)
        try:
            properties.load(file)
        finally:
            file.close()
    except Py4JJavaError as error:
        raise UsageError(
            f"kafka.properties_file cannot be read: {root_cause(error)}. Correct the path or the file"
        ) from None
    return {str(key): str(properties.getProperty(key)) for key in properties.stringPropertyNames()}
