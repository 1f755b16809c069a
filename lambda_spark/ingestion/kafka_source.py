"""A Kafka topic as a source: each message a JSON object with REES46's names.

Spark's own connector reads it and remembers the offsets in the stream's checkpoint; no consumer group is committed to
and no two readers take messages from each other. What a cluster asks of its clients (TLS, SASL) stands in a file of
Kafka's own client properties; its values go to Kafka and nowhere else: they are neither settings nor ever printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import KafkaError, UsageError, reason_of
from lambda_spark.ingestion.file_formats import json_lines
from lambda_spark.ingestion.source import KAFKA, Delivery, Part, part_of
from lambda_spark.settings import KafkaSettings
from lambda_spark.storage.checkpoints import APPLICATION, PLANNED, Checkpoint

_ANSWER_WITHIN_MS = 15_000
_FROM_START = "`--from-start` reads what there is from its earliest offset, and drops what is known as repeats"
_APPLICATIONS = f"{APPLICATION}.kafka."
"""Properties of `events` that begin with this hold the application ids of topics' streams."""


def stream_name(topic: str) -> str:
    """The name of a topic's stream, of its checkpoint's folder, and of its lock."""
    return f"ingest-kafka-{topic}"


def topics_read(properties: Iterable[str]) -> list[str]:
    """The topics whose messages a lake has taken in, by the names of what is recorded with `events`."""
    return sorted(key.removeprefix(_APPLICATIONS) for key in properties if key.startswith(_APPLICATIONS))


class KafkaSource:
    """The messages of one topic. Raises UsageError for a topic that is not named or options that cannot be read."""

    unit = "partitions"
    checkpoint_parts: tuple[str, ...] = (PLANNED,)

    def __init__(self, spark: SparkSession, settings: KafkaSettings) -> None:
        if not settings.bootstrap_servers or not settings.topic:
            raise UsageError("--source kafka needs --bootstrap-servers and --topic (or the settings kafka.…)")
        self._spark = spark
        self._settings = settings
        self._options = {**_client_properties(spark, settings), "bootstrap.servers": settings.bootstrap_servers}
        self.name = stream_name(settings.topic)
        self.application_key = f"{_APPLICATIONS}{settings.topic}"
        self.id_key = f"topic_id.kafka.{settings.topic}"
        """The property of `events` that holds the id of the topic that was read: a topic made again has another."""

    def look_up(self) -> str:
        """The topic's id. Raises UsageError for a topic that is not there, KafkaError where no broker answers."""
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
            reason = self._without_secrets(reason_of(error))
            # The chain of causes may quote the options: it is not passed on.
            if reason.startswith("UnknownTopicOrPartition"):
                raise UsageError(f"there is no topic '{topic}' at {servers}; create it, or name another") from None
            raise KafkaError(
                f"Kafka at {servers} cannot be asked for topic '{topic}' ({reason}); are the servers up and "
                "reachable, and the client's properties right (kafka.properties_file)?"
            ) from None

    def stream(self) -> DataFrame:
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
        return _MessageDelivery(batch)

    def was_recreated(self) -> KafkaError:
        return KafkaError(
            f"topic '{self._settings.topic}' at {self._settings.bootstrap_servers} is not the one that this lake has "
            f"read: it was created anew, or is another cluster's; {_FROM_START}"
        )

    @contextmanager
    def errors_in_one_line(self) -> Iterator[None]:
        """What Kafka or its connector refuses, as one line that says what to do."""
        try:
            yield
        except Exception as error:
            reason = self._without_secrets(reason_of(error))
            text = f"{reason} {error}"
            topic, servers = self._settings.topic, self._settings.bootstrap_servers
            if "OffsetOutOfRange" in text or "data may have been" in text or "KAFKA_DATA_LOSS" in text:
                raise KafkaError(
                    f"messages of topic '{topic}' are gone that had not been read yet: Kafka deleted them (retention), "
                    f"or the topic was created anew ({reason}); {_FROM_START}"
                ) from None
            if "org.apache.kafka" in text or "TimeoutException" in text:
                raise KafkaError(
                    f"Kafka at {servers} stopped answering for topic '{topic}' ({reason}); nothing is lost: "
                    "start this job again once it is back"
                ) from None
            raise

    def _without_secrets(self, text: str) -> str:
        for key, value in self._options.items():
            if value and key != "bootstrap.servers":
                text = text.replace(value, "…")
        return text


class _MessageDelivery(Delivery):
    """The messages of one micro-batch."""

    def __init__(self, batch: DataFrame) -> None:
        super().__init__()
        self._batch = batch

    def lines(self) -> DataFrame:
        # A message without a value is an empty line, and so a rejection like any other.
        value = F.coalesce(F.col("value"), F.lit(b""))
        return json_lines(
            self._batch.select(
                F.concat_ws("/", F.concat(F.lit(KAFKA), F.col("topic")), "partition", "offset").alias("source"),
                # The bytes as they are, also where they are no UTF-8: that is found out as for a file's line.
                value.cast("string").alias("raw"),
                F.lit(False).alias("is_header"),
                F.col("offset").alias("message"),
                F.col("timestamp").alias("arrived_at"),
                F.octet_length(value).alias("bytes"),
            ),
            "message",
            "arrived_at",
            "bytes",
        )

    def parts(self, inspected: DataFrame) -> dict[str, Part]:
        ranges = (
            inspected.groupBy(part_of(F.col("source")).alias("part"))
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
    """What stands in the file of client properties, as Java reads such files; empty where there is none."""
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
        raise UsageError(f"kafka.properties_file: {reason_of(error)}") from None
    return {str(key): str(properties.getProperty(key)) for key in properties.stringPropertyNames()}
