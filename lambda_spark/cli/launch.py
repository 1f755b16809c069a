"""Checks the command line `./spark-submit.sh JOB …`, then starts Spark's own `spark-submit`.

The check comes first, because Spark takes seconds to start. Then `spark-submit` replaces this process.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir

from lambda_spark.cli.arguments import FILES, JOBS, PROJECT, overview, parse, reads_kafka, settings_of
from lambda_spark.cli.jars import KAFKA_CONF, KAFKA_JARS, LOGGING, fetch_jars, spark_jars
from lambda_spark.errors import LambdaSparkError, UsageError
from lambda_spark.source_description import REES46
from lambda_spark.text import strip_control_characters

_LIST_OPTIONS = {"--jars": ",", "--driver-java-options": " "}
"""Options of `spark-submit` whose value is a list, each with the separator between the list's items."""


def main(arguments: list[str]) -> None:
    """Check the command line, then replace this process by the program that runs the job.

    If the command line is wrong, print one line and end the process with the error's exit code.

    Args:
        arguments: The job's name and its options.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        sys.exit(0 if arguments else 2)
    job, options = arguments[0], arguments[1:]
    try:
        if job not in JOBS:
            raise UsageError(f"there is no job '{job}'; the jobs are {', '.join(JOBS)}")
        if job == "generate":
            os.execv(sys.executable, [sys.executable, "-m", "lambda_spark.synthetic.generate", *options])
        parsed = parse(job, options)
        settings = settings_of(parsed)
        _check_sources(getattr(parsed, "sources", []))
        if job == "demo" and parsed.sources and settings.source == REES46 and parsed.source == FILES:
            options += _proposed_source(parsed.sources)
            parsed = parse(job, options)
        user_options = _user_options()
        if job == "replay":
            os.execv(sys.executable, [sys.executable, "-m", "lambda_spark.replay.play", *options])
        if job in ("lookup", "inspect"):
            os.execv(sys.executable, [sys.executable, "-m", f"lambda_spark.cli.{job}", *options])
        if reads_kafka(parsed):
            # Fetch the Kafka connector's jars only now, so that jobs on files need neither these jars nor Maven.
            fetch_jars(KAFKA_CONF, Path(sys.executable).parents[1], KAFKA_JARS)
    except LambdaSparkError as error:
        print(strip_control_characters(f"{job}: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    _become_spark(job, options, user_options, parsed)


def _proposed_source(sources: list[str]) -> list[str]:
    """Return the options that describe the demo's files, where they are local and not in REES46's format."""
    if any(":/" in source for source in sources):
        return []
    # Import DuckDB only here, because it takes a moment to load.
    from lambda_spark.cli.inspect import options_for

    return options_for(sources)


def _check_sources(sources: list[str]) -> None:
    for source in sources:
        if ":/" not in source and not Path(source).exists():
            raise UsageError(f"{source}: no such file or folder")


def _user_options() -> list[str]:
    """Read the user's own options for `spark-submit` from the environment variable SPARK_SUBMIT_OPTIONS."""
    try:
        return shlex.split(os.environ.get("SPARK_SUBMIT_OPTIONS", ""))
    except ValueError as error:
        raise UsageError(f"SPARK_SUBMIT_OPTIONS: {error}") from None


def with_added(options: list[str], user_options: list[str]) -> list[str]:
    """Add the user's options for `spark-submit` to those of the project.

    If both name an option whose value is a list, join the two lists. Otherwise `spark-submit` would use only the last.

    Args:
        options: The project's options, each list option followed by its value.
        user_options: The user's options, in the form `--name value` or `--name=value`.

    Returns:
        All options.
    """
    joined, words = list(options), iter(user_options)
    for word in words:
        name, equals, value = word.partition("=")
        if name in _LIST_OPTIONS and name in options:
            joined[options.index(name) + 1] += _LIST_OPTIONS[name] + (value if equals else next(words, ""))
        else:
            joined.append(word)
    return joined


def _become_spark(job: str, options: list[str], user_options: list[str], parsed: argparse.Namespace) -> None:
    """Replace this process by `spark-submit`, which runs the job's script. For the `shell` job, start Python."""
    environment = Path(sys.executable).parent
    log = _log_file(job, parsed.lake)
    # Pass the log's path as an environment variable and not as a Java option, because the path may contain quotes.
    os.environ["LAMBDA_SPARK_LOG"] = str(log)
    # Let Spark use this Python interpreter for the driver. The jobs run no Python on executors.
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
    submit = with_added(submit, user_options)
    script = str(PROJECT / "jobs" / f"{job}.py")
    if job == "shell":
        # Start Python as the main process, as Spark's own shell does. Python then starts `spark-submit` as a child.
        os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*submit, "pyspark-shell"])
        os.execv(sys.executable, [sys.executable, "-i", script, *options])
    command = [str(environment / "spark-submit"), *submit, script, *options]
    os.execv(command[0], command)


def _is_local(parsed: argparse.Namespace) -> bool:
    return (parsed.master or os.environ.get("SPARK_MASTER") or "local").startswith("local")


def _log_file(job: str, lake: str) -> Path:
    """Choose the path of a job's log file.

    The file is in the folder `_logs` of the lake. It is in a temporary folder of the user if the lake is remote or
    read-only, or if the folder is not a lake.
    """
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


if __name__ == "__main__":
    main(sys.argv[1:])
