"""From `./spark-submit.sh JOB …` to Spark's own `spark-submit`: checks the command line first, then becomes it."""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir

from lambda_spark.cli.arguments import JOBS, PROJECT, overview, parse, reads_kafka
from lambda_spark.errors import LambdaSparkError, UsageError
from lambda_spark.settings import load_settings
from lambda_spark.text import clean

KAFKA_CONF = PROJECT / "conf" / "kafka.conf"
KAFKA_JARS = "kafka-ivy"
LOGGING = f'"-Dlog4j2.configurationFile={(PROJECT / "conf" / "log4j2.properties").as_uri()}"'
"""What tells Java where a job's log goes: quoted, since the project's folder may have spaces in its name."""
_LISTS = {"--jars": ",", "--driver-java-options": " "}
"""Options of `spark-submit` that are lists, and what stands between two of such a list."""


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        sys.exit(0 if arguments else 2)
    job, options = arguments[0], arguments[1:]
    try:
        if job not in JOBS:
            raise UsageError(f"there is no job '{job}'; there are {', '.join(JOBS)}")
        if job == "generate":
            os.execv(sys.executable, [sys.executable, "-m", "lambda_spark.synthetic.generate", *options])
        parsed = parse(job, options)
        load_settings(parsed.conf_file, parsed.assignments)
        _check_sources(getattr(parsed, "sources", []))
        theirs = _added_options()
        if job == "replay":
            os.execv(sys.executable, [sys.executable, "-m", "lambda_spark.replay.play", *options])
        if job == "lookup":
            os.execv(sys.executable, [sys.executable, "-m", "lambda_spark.cli.lookup", *options])
        if reads_kafka(parsed):
            fetch_jars(KAFKA_CONF, Path(sys.executable).parents[1], KAFKA_JARS)
    except LambdaSparkError as error:
        print(clean(f"{job}: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    _become_spark(job, options, theirs, parsed)


def _check_sources(sources: list[str]) -> None:
    for source in sources:
        if ":/" not in source and not Path(source).exists():
            raise UsageError(f"{source}: no such file or folder")


def _added_options() -> list[str]:
    try:
        return shlex.split(os.environ.get("SPARK_SUBMIT_OPTIONS", ""))
    except ValueError as error:
        raise UsageError(f"SPARK_SUBMIT_OPTIONS: {error}") from None


def with_added(options: list[str], theirs: list[str]) -> list[str]:
    """Options for `spark-submit` with those that the user adds: of a list given twice it would keep the last alone."""
    joined, words = list(options), iter(theirs)
    for word in words:
        name, equals, value = word.partition("=")
        if name in _LISTS and name in options:
            joined[options.index(name) + 1] += _LISTS[name] + (value if equals else next(words, ""))
        else:
            joined.append(word)
    return joined


def _become_spark(job: str, options: list[str], theirs: list[str], parsed: argparse.Namespace) -> None:
    environment = Path(sys.executable).parent
    log = _log_file(job, parsed.lake)
    # Not among Java's options: a lake's folder may have quotes in its name.
    os.environ["LAMBDA_SPARK_LOG"] = str(log)
    # Executors run no Python, but Spark asks for the driver's interpreter by name.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1") if _is_local(parsed) else None
    submit = [
        "--master",
        parsed.master or os.environ.get("SPARK_MASTER") or "local[*]",
        "--properties-file",
        str(PROJECT / "conf" / "spark-defaults.conf"),
        "--load-spark-defaults",
        "--driver-java-options",
        LOGGING,
        "--conf",
        f"spark.ui.showConsoleProgress={str(sys.stderr.isatty()).lower()}",
        *spark_jars(environment.parent, with_kafka=reads_kafka(parsed)),
    ]
    submit = with_added(submit, theirs)
    script = str(PROJECT / "jobs" / f"{job}.py")
    if job == "shell":
        # Spark's own way to a prompt: Python is the main process and starts spark-submit behind it.
        os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*submit, "pyspark-shell"])
        os.execv(sys.executable, [sys.executable, "-i", script, *options])
    command = [str(environment / "spark-submit"), *submit, script, *options]
    os.execv(command[0], command)


def _is_local(parsed: argparse.Namespace) -> bool:
    return (parsed.master or os.environ.get("SPARK_MASTER") or "local").startswith("local")


def _log_file(job: str, lake: str) -> Path:
    """Under the lake's `_logs`, but never in a folder that is something else, nor on a remote file system."""
    folder = Path(lake)
    is_lake = (folder / "events" / "_delta_log").is_dir()
    is_free = not folder.exists() or (
        folder.is_dir() and all(name.name.startswith(("_", ".")) for name in folder.iterdir())
    )
    creates = job in ("demo", "run", "ingest")
    is_writable = not folder.exists() or os.access(folder, os.W_OK)
    if ":/" in lake or not is_writable or not (is_lake or (creates and is_free)):
        folder = Path(gettempdir(), f"lambda-spark-{os.getuid()}")
    name = f"{job}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    return folder.resolve() / "_logs" / name


def spark_jars(environment: Path, *, with_kafka: bool) -> list[str]:
    """The jars that Spark once resolved, so that no later start asks Maven again.

    Kafka's connector is on the class path of those jobs only that use it.
    """
    folders = ["ivy", *([KAFKA_JARS] if with_kafka else [])]
    jars = [jar for folder in folders for jar in sorted((environment / folder / "jars").glob("*.jar"))]
    # What they exclude is excluded already: packages that the user adds, say for an object store, come whole.
    resolved = ["--conf", "spark.jars.packages=", "--conf", "spark.jars.excludes="]
    return [*resolved, "--jars", ",".join(map(str, jars))] if jars else []


def fetch_jars(conf: Path, environment: Path, folder: str) -> None:
    """Have Spark resolve the packages that a properties file names into a folder of the environment, once.

    Not part of the set-up: who reads files neither waits for Kafka's connector nor needs Maven for it. Raises
    LambdaSparkError where it cannot be done.
    """
    stamp = environment / f"{conf.name}.stamp"

    def is_done() -> bool:
        return stamp.exists() and stamp.read_bytes() == conf.read_bytes()

    # Asked before the lock too: where all is there, whoever starts a job need not be one who may write there.
    if is_done():
        return
    with (PROJECT / ".setup.lock").open("w") as lock:
        # Two first starts at once do not mix.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_done():
            return
        print(f"fetching the jars that {conf.name} names (once)", file=sys.stderr)
        # First: interrupted, or back at what it named before, nothing says that they are there.
        stamp.unlink(missing_ok=True)
        shutil.rmtree(environment / folder, ignore_errors=True)
        ready = environment / "ready.py"
        ready.write_text("print('ready')\n")
        command = [str(environment / "bin" / "spark-submit"), "--properties-file", str(conf), "--master", "local[1]"]
        command += ["--conf", f"spark.jars.ivy={environment / folder}", str(ready)]
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **python})
        if done.returncode != 0:
            (environment / "setup.err").write_text(done.stderr)
            raise LambdaSparkError(
                f"the jars that {conf} names could not be fetched (see {environment}/setup.err); this needs Maven "
                "Central once"
            )
        shutil.copy(conf, stamp)


if __name__ == "__main__":
    main(sys.argv[1:])
