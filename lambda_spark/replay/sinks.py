"""The sinks of a replay. A sink receives the replayed lines and writes them to a folder or a Kafka topic."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaException, Producer

from lambda_spark.errors import KafkaError, UsageError
from lambda_spark.replay.feed import Day, Layout
from lambda_spark.settings import KafkaSettings

_MAX_QUEUED_MESSAGES = 500_000
"""Largest number of messages that may wait in the Kafka client until they are sent."""


class Sink(Protocol):
    """A receiver of replayed lines."""

    def deliver(self, day: Day, start: int, end: int, number: int) -> None:
        """Deliver some lines of a day.

        Args:
            day: Lines of a day.
            start: Index in the day of the first line to deliver.
            end: Index in the day after the last line to deliver.
            number: Index of the first line to deliver in the whole feed, from 0.
        """
        ...


class FolderSink:
    """Sink that writes replayed lines to files in a folder. A file gets its final name when it is complete."""

    def __init__(self, folder: Path, layouts: Sequence[Layout], name: str) -> None:
        self._folder = folder
        self._layouts = layouts
        self._name = name

    def deliver(self, day: Day, start: int, end: int, number: int) -> None:
        """Write one file for each layout (a CSV header, or JSON) among the lines to deliver."""
        present = day.layouts[start:end]
        for layout in np.unique(present).tolist():
            chosen = np.flatnonzero(present == layout)
            lines = day.lines.slice(start, end - start)
            self._write(number, layout, lines if len(chosen) == end - start else lines.take(pa.array(chosen)))

    def _write(self, number: int, layout: int, lines: pa.LargeBinaryArray) -> None:
        """Write lines to a file, unless a file with the same name exists.

        Such a file comes from an earlier delivery of the same lines, which was killed before the replay noted its end.
        """
        first_line = self._layouts[layout].header
        suffix = "csv" if self._layouts[layout].format == "csv" else "jsonl"
        name = f"replay-{self._name}-{number:012}-{layout}.{suffix}"
        target, unfinished = self._folder / name, self._folder / f"_{name}"
        if target.exists():
            return
        offsets = np.frombuffer(lines.buffers()[1], np.int64)[lines.offset : lines.offset + len(lines) + 1]
        with unfinished.open("wb") as file:
            file.write(first_line)
            file.write(memoryview(lines.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
        os.replace(unfinished, target)


class TopicSink:
    """Sink that sends replayed events as JSON messages to a Kafka topic.

    All messages of a user go to one partition. A line that is no event is sent unchanged.

    Raises:
        UsageError: The topic does not exist, or librdkafka (the Kafka client) does not accept the client properties.
        KafkaError: The Kafka servers do not answer.
    """

    def __init__(self, settings: KafkaSettings, layouts: Sequence[Layout]) -> None:
        self._topic = settings.topic
        self._servers = settings.bootstrap_servers
        self._layouts = layouts
        self._failures: list[str] = []
        options: dict[str, Any] = {
            **_producer_options(settings),
            "bootstrap.servers": settings.bootstrap_servers,
            # Let Kafka store each message once, even if the client sends it again after a broken connection.
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
            "queue.buffering.max.messages": _MAX_QUEUED_MESSAGES,
            "on_delivery": self._delivered,
            # Silence the output of librdkafka (the Kafka client), because `deliver` reports a failure in one line.
            "log_level": 0,
            "error_cb": lambda error: None,
        }
        try:
            self._producer = Producer(options)
            topics = self._producer.list_topics(self._topic, timeout=15).topics
        except KafkaException as error:
            reason = error.args[0].str()
            if "configuration property" in reason:
                raise UsageError(
                    f"kafka.properties_file: {reason.split(':')[0]}; correct the property (replay uses librdkafka, "
                    "which does not take all properties of Java clients)"
                ) from None
            raise KafkaError(
                f"Kafka at {self._servers} does not answer a request for topic '{self._topic}' ({reason}); check "
                "--bootstrap-servers and that the servers are up, then start again"
            ) from None
        if topics[self._topic].error is not None:
            raise UsageError(
                f"there is no topic '{self._topic}' at {self._servers}; create it, or name another with --topic"
            )

    def deliver(self, day: Day, start: int, end: int, number: int) -> None:
        """Send a Kafka message for each line, and wait until Kafka has accepted all messages.

        Raises:
            KafkaError: Kafka did not accept a message.
        """
        layouts = day.layouts[start:end].tolist()
        for line, layout in zip(day.lines.slice(start, end - start).to_pylist(), layouts, strict=True):
            value, key = message(line.rstrip(b"\r\n"), self._layouts[layout])
            while True:
                try:
                    self._producer.produce(self._topic, value=value, key=key)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self._producer.flush()
        if self._failures:
            raise KafkaError(f"Kafka at {self._servers} did not take all messages ({self._failures[0]}); start again")

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failures.append(str(error.str()))


def message(line: bytes, layout: Layout) -> tuple[bytes, bytes | None]:
    """Make a Kafka message from a line of an event file.

    Args:
        line: A line without its line end.
        layout: The layout of the line (CSV with certain columns, or JSON).

    Returns:
        The value and the key of the message. The value is the event as JSON, and the key is the user's id. If the line
            is no event, the value is the unchanged line, and the key is None.
    """
    if layout.format == "json":
        user = re.search(rb'"user_id"\s*:\s*"?(\d+)', line)
        return line, user[1] if user else None
    try:
        text = line.decode("utf-8")
        [fields] = [text.split(",")] if '"' not in text else csv.reader([text], strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError):
        return line, None
    if len(fields) != len(layout.columns):
        return line, None
    event = {name: field for name, field in zip(layout.columns, fields, strict=True) if field}
    return json.dumps(event, ensure_ascii=False).encode(), event.get("user_id", "").encode() or None


def _producer_options(settings: KafkaSettings) -> dict[str, str]:
    """Read the file of Kafka client properties, and translate Java clients' names to those of librdkafka.

    Two kinds of properties have other names in librdkafka. They are the SASL user and password, and the file of trusted
    certificates. The file of trusted certificates has to be a PEM file.
    """
    if not settings.properties_file:
        return {}
    try:
        lines = Path(settings.properties_file).read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"kafka.properties_file: {settings.properties_file} cannot be read ({error}); name another file"
        ) from None
    entries = [
        line.strip().partition("=") for line in lines if line.strip() and not line.lstrip().startswith(("#", "!"))
    ]
    options = {key.strip(): value.strip() for key, _, value in entries}
    user = re.search(r'username="([^"]*)"\s+password="([^"]*)"', options.pop("sasl.jaas.config", ""))
    if user:
        options |= {"sasl.username": user[1], "sasl.password": user[2]}
    if "ssl.truststore.location" in options:
        options["ssl.ca.location"] = options.pop("ssl.truststore.location")
        options.pop("ssl.truststore.type", None)
    return options
