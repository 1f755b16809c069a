"""Starts a real Kafka broker for the tests: one KRaft node on loopback, run from Maven jars."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyspark
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from lambda_spark.cli.jars import fetch_jars

_CONF = Path(__file__).with_name("kafka_broker.conf")
_JARS = "broker-ivy"
_READY_WITHIN = 60


class Broker:
    """A Kafka broker with its own folder. It keeps its address and messages after a kill and a restart."""

    def __init__(self, folder: Path) -> None:
        fetch_jars(_CONF, Path(sys.prefix), _JARS)
        self._folder = folder
        port, controller = free_port(), free_port()
        self._port = port
        self.address = f"127.0.0.1:{port}"
        self._properties = folder / "server.properties"
        folder.mkdir(parents=True)
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "log.dirs": str(folder / "logs"),
            "offsets.topic.replication.factor": "1",
            "auto.create.topics.enable": "false",
            # Let the broker look for expired messages often. By default, it looks for them only every five minutes.
            "log.retention.check.interval.ms": "500",
            "log.segment.delete.delay.ms": "0",
            "log.initial.task.delay.ms": "500",
        }
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties))
        self._admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_command(), "kafka.Kafka", str(self._properties)], stdout=log, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + _READY_WITHIN
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                log_text = (self._folder / "broker.log").read_text()
                assert self._process.poll() is None, log_text[-2000:]
                assert time.monotonic() < end, log_text[-2000:]
                time.sleep(0.1)

    def kill(self) -> None:
        """Kill the broker with SIGKILL, so that it neither flushes nor closes connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def create_topic(self, name: str, *, partitions: int) -> None:
        created = self._admin.create_topics([NewTopic(name, partitions, 1)])
        created[name].result(timeout=30)

    def delete_topic(self, name: str) -> None:
        self._admin.delete_topics([name])[name].result(timeout=30)
        while name in self._admin.list_topics(timeout=10).topics:
            time.sleep(0.1)

    def delete_messages(self, topic: str, *, partition: int, before: int) -> None:
        """Delete all messages before an offset, as Kafka does when messages expire."""
        for done in self._admin.delete_records([TopicPartition(topic, partition, before)]).values():
            done.result(timeout=30)

    def send(self, topic: str, values: Sequence[bytes | None], *, partition: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self.address})
        for value in values:
            producer.produce(topic, value=value, partition=partition)
        assert producer.flush(30) == 0

    def _java(self, *arguments: str) -> str:
        done = subprocess.run([*_command(), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _command() -> list[str]:
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    assert java
    # Take Scala's library from Spark, because Spark's resolver does not download this library.
    [scala] = Path(pyspark.__file__).parent.glob("jars/scala-library-*.jar")
    jars = Path(sys.prefix, _JARS, "jars")
    return [java, "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{jars}/*:{scala}"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
