"""From `./spark-submit.sh JOB …` to Spark's own `spark-submit`: checks the command line first, then becomes it."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir

from lambda_spark.arguments import JOBS, PROJECT, overview, parse
from lambda_spark.errors import UsageError
from lambda_spark.settings import load_settings

_STAYS_ON_THIS_MACHINE = {"shell", "generate"}


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        sys.exit(0 if arguments else 2)
    job, options = arguments[0], arguments[1:]
    try:
        if job not in JOBS:
            raise UsageError(f"there is no job '{job}'; there are {', '.join(JOBS)}")
        if job == "generate":
            os.execv(sys.executable, [sys.executable, "-m", "lambda_spark.store.files", *options])
        parsed = parse(job, options)
        load_settings(parsed.conf_file, parsed.assignments)
        _check_sources(getattr(parsed, "sources", []))
    except UsageError as error:
        print(f"{job}: {error}", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    _become_spark(job, options, parsed)


def _check_sources(sources: list[str]) -> None:
    for source in sources:
        if ":/" not in source and not Path(source).exists():
            raise UsageError(f"{source}: no such file or folder")


def _become_spark(job: str, options: list[str], parsed: argparse.Namespace) -> None:
    environment = Path(sys.executable).parent
    log = _log_file(job, parsed.lake)
    os.environ["LAMBDA_SPARK_LOG"] = str(log)
    os.environ["LAMBDA_SPARK_HOME"] = str(PROJECT)
    # Executors run no Python, but Spark asks for the driver's interpreter by name.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1") if _is_local(parsed) else None
    submit = [
        "--master",
        parsed.master or os.environ.get("SPARK_MASTER") or "local[*]",
        "--properties-file",
        str(PROJECT / "conf" / "spark-defaults.conf"),
        "--load-spark-defaults",
        "--py-files",
        str(_package(environment)),
        "--driver-java-options",
        f"-Dlambda_spark.log={log} -Dlog4j2.configurationFile=file:{PROJECT}/conf/log4j2.properties",
        "--conf",
        f"spark.ui.showConsoleProgress={str(sys.stderr.isatty()).lower()}",
        *delta_jars(environment.parent),
        *shlex.split(os.environ.get("SPARK_SUBMIT_OPTIONS", "")),
    ]
    script = str(PROJECT / "jobs" / f"{job}.py")
    if job == "shell":
        # Spark's own way to a prompt: Python is the main process and starts spark-submit behind it.
        os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*submit, "pyspark-shell"])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
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
    if ":/" in lake or not (is_lake or (creates and is_free)):
        folder = Path(gettempdir(), "lambda-spark")
    name = f"{job}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    return folder.resolve() / "_logs" / name


def _package(environment: Path) -> Path:
    """The package as a zip, as a cluster takes it; made again where a file is newer."""
    target = environment.parent / "lambda_spark.zip"
    sources = sorted((PROJECT / "lambda_spark").rglob("*.py"))
    newest = max(source.stat().st_mtime for source in [*sources, PROJECT / "lambda_spark"])
    if not target.exists() or target.stat().st_mtime < newest:
        draft = target.with_suffix(f".{os.getpid()}")
        with zipfile.ZipFile(draft, "w") as package:
            for source in sources:
                package.write(source, source.relative_to(PROJECT))
        draft.replace(target)
    return target


def delta_jars(environment: Path) -> list[str]:
    """The jars that the set-up had Spark resolve, so that no later start asks Maven again."""
    jars = sorted((environment / "ivy" / "jars").glob("*.jar"))
    return ["--conf", "spark.jars.packages=", "--jars", ",".join(map(str, jars))] if jars else []


if __name__ == "__main__":
    main(sys.argv[1:])
