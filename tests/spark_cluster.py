"""Starts a real Spark standalone cluster for the tests, with a master and workers as processes on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pyspark

from tests.kafka_broker import free_port

_READY_WITHIN = 60
NO_PYTHON = "/there/is/no/python"
"""Path at which executors look for Python. Nothing is at this path, so a job that needs Python there fails."""


class Cluster:
    """A running Spark master and its workers. Each worker has one core."""

    def __init__(self, folder: Path, workers: int, *, memory: str = "1g") -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        port = free_port()
        self.master = f"spark://127.0.0.1:{port}"
        self._start("master", "Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0")
        self._wait_for("master", "Starting Spark master")
        for number in range(workers):
            name = f"worker-{number}"
            options = ("--host", "127.0.0.1", "--cores", "1", "--memory", memory, "--webui-port", "0")
            self._start(name, "Worker", *options, "--work-dir", str(folder / name), self.master)
        for number in range(workers):
            self._wait_for(f"worker-{number}", "Successfully registered with master")

    def kill_worker(self, number: int) -> None:
        """Kill a worker and its executors with SIGKILL."""
        self._kill(self._processes[1 + number])

    def stop(self) -> None:
        for process in self._processes:
            self._kill(process)

    def executor_logs(self, number: int) -> str:
        """Return the error output of a worker's executors."""
        return "".join(log.read_text() for log in sorted((self._folder / f"worker-{number}").rglob("stderr")))

    def _start(self, name: str, role: str, *options: str) -> None:
        home = Path(pyspark.__file__).parent
        command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{role.lower()}.{role}", *options]
        environment = {
            **os.environ,
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_DAEMON_MEMORY": "256m",
            "PYSPARK_PYTHON": NO_PYTHON,
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
            )

    def _wait_for(self, name: str, words: str) -> None:
        log, end = self._folder / f"{name}.log", time.monotonic() + _READY_WITHIN
        while words not in log.read_text():
            assert time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(0.1)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
