"""The jars that Spark needs in addition to its own.

They are fetched from Maven Central once. Each job then gets them on its class path.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lambda_spark.cli.arguments import PROJECT
from lambda_spark.errors import LambdaSparkError
from lambda_spark.text import strip_control_characters

DELTA_CONF = PROJECT / "conf" / "spark-defaults.conf"
DELTA_JARS = "ivy"
"""Folder of the environment that holds Delta's jars. The set-up fetches them."""
KAFKA_CONF = PROJECT / "conf" / "kafka.conf"
KAFKA_JARS = "kafka-ivy"
"""Folder of the environment that holds the jars of Spark's Kafka connector. The first job that reads Kafka fetches
them."""
LOGGING = f'"-Dlog4j2.configurationFile={(PROJECT / "conf" / "log4j2.properties").as_uri()}"'
"""Java option that names the log4j configuration. It is quoted, because the project's path may contain spaces."""

_ERROR_LINES = 20
"""Number of lines of Spark's error output to show when a fetch fails."""


def fetch_jars(conf: Path, environment: Path, folder: str) -> None:
    """Fetch the packages that a Spark properties file names, unless they are there already.

    Args:
        conf: Properties file with `spark.jars.packages`.
        environment: The virtual environment that keeps the jars.
        folder: Name of the folder in the environment for these jars.

    Raises:
        LambdaSparkError: The packages could not be fetched.
    """
    # Look for the jars before taking the lock, because a user without write permission cannot take it, and need not.
    if _is_fetched(conf, environment):
        return
    with (PROJECT / ".setup.lock").open("w") as lock:
        # Take the set-up lock, because two first starts may run at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _fetch(conf, environment, folder)


def spark_jars(environment: Path, *, with_kafka: bool) -> list[str]:
    """Return the options of `spark-submit` that put the fetched jars on the class path.

    With these options Spark does not ask Maven Central at each start.

    Args:
        environment: The virtual environment that keeps the jars.
        with_kafka: Whether to add Spark's Kafka connector. Only jobs that read Kafka need it.

    Returns:
        The options, or an empty list when no jars have been fetched.
    """
    folders = [DELTA_JARS, *([KAFKA_JARS] if with_kafka else [])]
    jars = [jar for folder in folders for jar in sorted((environment / folder / "jars").glob("*.jar"))]
    # Clear the exclusions too, because the fetch has applied them already. Otherwise they would also apply to packages
    # that the user adds, for instance for an object store.
    fetched = ["--conf", "spark.jars.packages=", "--conf", "spark.jars.excludes="]
    return [*fetched, "--jars", ",".join(map(str, jars))] if jars else []


def main(arguments: list[str]) -> int:
    """Fetch Delta's jars for `spark-submit.sh`, which holds the set-up lock meanwhile.

    Args:
        arguments: The path of the virtual environment.

    Returns:
        The exit code: 0 when the jars are there, 2 when they could not be fetched, 130 after Ctrl-C.
    """
    [environment] = map(Path, arguments)
    try:
        _fetch(DELTA_CONF, environment, DELTA_JARS)
    except LambdaSparkError as error:
        print(strip_control_characters(f"spark-submit.sh: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _fetch(conf: Path, environment: Path, folder: str) -> None:
    """Let Spark resolve the packages by running an empty job. The caller holds the set-up lock."""
    # Check again, because the process that held the lock before may have fetched the packages.
    if _is_fetched(conf, environment):
        return
    print(f"fetching the jars that {conf.name} names from Maven Central (once)", file=sys.stderr)
    # Remove the stamp first, so that an interrupted fetch leaves no stamp. An old stamp would be taken for valid if the
    # properties file returned to its earlier content.
    stamp = _stamp(conf, environment)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(environment / folder, ignore_errors=True)
    job = environment / "ready.py"
    job.write_text("print('ready')\n")
    command = [str(environment / "bin" / "spark-submit"), "--properties-file", str(conf), "--master", "local[1]"]
    command += ["--conf", f"spark.jars.ivy={environment / folder}", "--driver-java-options", LOGGING, str(job)]
    variables = {
        "LAMBDA_SPARK_LOG": str(environment / "setup.log"),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }
    errors = environment / "setup.err"
    with errors.open("w") as output:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=output, check=False, env={**os.environ, **variables}
        )
    if done.returncode != 0:
        for line in errors.read_text(encoding="utf-8", errors="replace").splitlines()[-_ERROR_LINES:]:
            print(strip_control_characters(line), file=sys.stderr)
        raise LambdaSparkError(
            f"the jars that {conf} names could not be fetched (the lines above are the end of {errors}): this needs "
            "Maven Central once, so check the network connection and start again"
        )
    shutil.copy(conf, stamp)


def _is_fetched(conf: Path, environment: Path) -> bool:
    """Whether the stamp equals the properties file byte for byte."""
    stamp = _stamp(conf, environment)
    return stamp.exists() and stamp.read_bytes() == conf.read_bytes()


def _stamp(conf: Path, environment: Path) -> Path:
    """Return the path of the stamp, a copy of the properties file whose packages have been fetched."""
    return environment / f"{conf.name}.stamp"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
