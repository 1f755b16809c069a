"""Fetches the jars of Delta Lake and of Spark's Kafka connector, and puts them on the class path of jobs.

The jars come from Maven Central once. Later starts use the files in the virtual environment.
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
"""Folder of the virtual environment that holds Delta's jars. The set-up in `spark-submit.sh` fetches these jars."""
KAFKA_CONF = PROJECT / "conf" / "kafka.conf"
KAFKA_JARS = "kafka-ivy"
"""Folder of the virtual environment that holds the jars of Spark's Kafka connector.

The first job that reads Kafka fetches these jars.
"""
LOGGING = f'"-Dlog4j2.configurationFile={(PROJECT / "conf" / "log4j2.properties").as_uri()}"'
"""Java option that names the log4j configuration. The option is quoted, because its path may contain spaces."""

_ERROR_LINES = 20
"""Number of last lines of Spark's error output to show when the jars cannot be fetched."""


def fetch_jars(conf: Path, environment: Path, folder: str) -> None:
    """Fetch the jars of the packages that a Spark properties file names, unless they are already fetched.

    Args:
        conf: Properties file with `spark.jars.packages`.
        environment: The virtual environment that keeps the jars.
        folder: Name of the folder in the environment for these jars.

    Raises:
        LambdaSparkError: The packages could not be fetched.
    """
    # Look for the jars before taking the lock, because users without write permission cannot take the lock.
    if _is_fetched(conf, environment):
        return
    with (PROJECT / ".setup.lock").open("w") as lock:
        # Take the set-up lock, because two jobs that start for the first time may want to fetch the same jars.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _fetch(conf, environment, folder)


def spark_jars(environment: Path, *, with_kafka: bool) -> list[str]:
    """Return the options of `spark-submit` that put the fetched jars on the class path.

    With these options, Spark does not contact Maven Central at each start.

    Args:
        environment: The virtual environment that keeps the jars.
        with_kafka: Whether to add Spark's Kafka connector. Only jobs that read Kafka need it.

    Returns:
        The options, or an empty list when no jars have been fetched.
    """
    folders = [DELTA_JARS, *([KAFKA_JARS] if with_kafka else [])]
    jars = [jar for folder in folders for jar in sorted((environment / folder / "jars").glob("*.jar"))]
    # Clear the list of excluded packages too. It was needed only to fetch the jars. Otherwise it would also apply to
    # packages that the user adds, for instance for an object store.
    fetched = ["--conf", "spark.jars.packages=", "--conf", "spark.jars.excludes="]
    return [*fetched, "--jars", ",".join(map(str, jars))] if jars else []


def main(arguments: list[str]) -> int:
    """Fetch Delta's jars. The caller, `spark-submit.sh`, holds the set-up lock.

    Args:
        arguments: One item, the path of the virtual environment.

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
    """Run an empty Spark job, so that Spark downloads the packages. The caller holds the set-up lock."""
    # Check again, because another process may have fetched the packages while this process waited for the lock.
    if _is_fetched(conf, environment):
        return
    print(f"fetching the jars that {conf.name} names from Maven Central (once)", file=sys.stderr)
    # Remove the stamp (the copy of the properties file) first, so that an interrupted fetch leaves no stamp. An old
    # stamp would wrongly count as valid if someone changed the properties file back to its old content.
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
    """Return whether the packages of this properties file are fetched, which means that its stamp is an equal copy."""
    stamp = _stamp(conf, environment)
    return stamp.exists() and stamp.read_bytes() == conf.read_bytes()


def _stamp(conf: Path, environment: Path) -> Path:
    """Return the path of the stamp, a copy of the properties file whose packages have been fetched."""
    return environment / f"{conf.name}.stamp"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
