"""Defines and parses the command line of every job.

This module does not import Spark, so that the user sees the help or an error message at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from lambda_spark.errors import UsageError
from lambda_spark.settings import AVAILABLE_NOW, Settings, check_trigger, load_settings

PROGRAM = "./spark-submit.sh"
PROJECT = Path(__file__).resolve().parents[2]

FILES, KAFKA = "files", "kafka"
DESCRIPTIONS = PROJECT / "conf" / "sources"
"""Folder of the ready source descriptions. The option `--source` takes the name of one."""
VERIFIED = ("products", "trends", "co_interactions", "similar_items", "recommendations")
PROTOCOLS = ("next-item", "second-half", "future")

JOBS = {
    "demo": "run all steps on a small store (or on your files) into a fresh lake, and print the result",
    "run": "run all steps once on what is new: ingest, trends, similarity, recommend; for a scheduler",
    "ingest": "read event files or a Kafka topic into the tables events, products and rejected_events",
    "trends": "batch layer: compute which demand rises and which wanes, per time bucket",
    "similarity": "speed layer: bring the counts of item co-interaction and similar_items up to date",
    "recommend": "serving layer: write the list of every active user, or print the list of one user",
    "lookup": "print the list that `recommend` wrote for a user, at once and without Spark",
    "inspect": "look at a sample of a log, at once and without Spark, and propose a description of it",
    "verify": "recompute every table from events and compare; exit code 1 if a table differs",
    "status": "print rows, size and newest event of every table, the lag of every step, and the last runs",
    "evaluate": "measure recommendations and baselines on what users did after a split in time",
    "maintain": "keep the lake small: compact small files, delete unneeded files, and expire old events",
    "forget": "remove users from every table, as if they had never visited the store",
    "restore": "undo a bad feed: take the lake back to a time, and read all files again but those in ingest.exclude",
    "migrate": "rename the tables of a lake from an earlier version to the names of this version",
    "history": "list what each job wrote, when, and from which versions of which tables",
    "sql": "run a Spark SQL query; every table of the lake is a view of the same name",
    "shell": "open a PySpark shell; every table of the lake is a view of the same name",
    "replay": "play event files as a live feed into a folder or a Kafka topic, at a chosen pace",
    "generate": "write the event log of a made-up store, for trials and benchmarks",
    "benchmark": "measure every layer beside other libraries for the same work, on one machine",
    "test": "install the development packages and run the tests",
    "docs": "write the parts of the READMEs and of conf/lambda.toml that follow from the code",
}
"""Name of every job, with the description that `--help` prints."""

EXAMPLES = {
    "demo": ("", "october.csv.gz --set trends.bucket='30 minutes'"),
    "run": ("/data/events --lake /data/lake", "/data/events --lake /data/lake --wait"),
    "ingest": (
        "/data/events --trigger '30 seconds'",
        "--source kafka --bootstrap-servers one:9092 --topic clicks --trigger '2 seconds'",
    ),
    "trends": ("", "--from 2019-10-01 --to 2019-10-08", "--as-of 2019-10-21"),
    "similarity": ("--trigger '10 seconds'", "--rebuild"),
    "recommend": ("", "--user 517392081"),
    "lookup": ("--user 517392081", "--user 517392081 --json"),
    "inspect": ("export.csv", "/data/events --write shop.toml"),
    "verify": ("", "--table similar_items"),
    "status": ("", "--prometheus /var/lib/node_exporter/lambda_spark.prom"),
    "evaluate": ("--protocol next-item", "october.csv.gz --protocol second-half", "--tune --budget 60"),
    "maintain": ("--dry-run", ""),
    "forget": ("--user 517392081 --dry-run", "--users-file leavers.txt --refuse"),
    "restore": ("--to '2019-11-03 12:00' /data/events --set ingest.exclude=bad.csv --dry-run",),
    "migrate": ("--dry-run", ""),
    "history": ("--limit 50",),
    "sql": ('"select count(*) from events"',),
    "shell": ("",),
    "replay": (
        "data/store --to inbox --rate 1000",
        "data/store --topic clicks --bootstrap-servers one:9092 --speed 3600",
    ),
    "generate": ("--events 5e6 --format parquet --out /tmp/store",),
    "benchmark": ("layers --events 5e6", "growth --events 50e6", "trends --stores 100"),
    "test": ("", "-k trends", "-m long"),
    "docs": ("", "--lake lake"),
}
"""Example command lines of every job, each without the program and the name of the job."""

_WITHOUT_LAKE = {"replay", "inspect"}
_WITHOUT_SPARK = {"replay", "lookup", "inspect"}

Value = TypeVar("Value")


class _Parser(argparse.ArgumentParser):
    """A parser that raises UsageError for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def overview() -> str:
    """Return the text that `./spark-submit.sh --help` prints."""
    width = max(map(len, JOBS))
    lines = [f"  {name:<{width}}  {text}" for name, text in JOBS.items()]
    return "\n".join(
        [f"Usage: {PROGRAM} JOB [options]", "", *lines, "", f"{PROGRAM} JOB --help lists the options of a job."]
    )


def parser_of(job: str) -> argparse.ArgumentParser:
    """Return the parser of a job's command line.

    Args:
        job: Name of the job, a key of JOBS.
    """
    examples = [f"  {PROGRAM} {job} {words}".rstrip() for words in EXAMPLES[job]]
    exit_codes = (
        "Exit codes: 0 done, 1 the job failed (or verify found a difference, or inspect is not sure), 2 wrong use,\n"
        "75 another process is working on the lake (try again later)."
    )
    parser = _Parser(
        prog=f"{PROGRAM} {job}",
        description=JOBS[job][0].upper() + JOBS[job][1:] + ".",
        epilog="\n".join(["examples:", *examples, "", exit_codes]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if job in _OPTIONS:
        _OPTIONS[job](parser)
    common = parser.add_argument_group("every job")
    if job not in _WITHOUT_SPARK:
        common.add_argument("--master", help="Spark master (default: $SPARK_MASTER, else local[*])")
    if job not in _WITHOUT_LAKE:
        common.add_argument("--lake", default="lake", metavar="PATH", help="folder of the Delta tables (default: lake)")
    common.add_argument(
        "--conf-file",
        type=Path,
        default=PROJECT / "conf" / "lambda.toml" if (PROJECT / "conf" / "lambda.toml").exists() else None,
        metavar="FILE",
        help="settings file (default: conf/lambda.toml)",
    )
    common.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting, like --set trends.bucket='30 minutes'; may be repeated",
    )
    return parser


def parse(job: str, arguments: list[str]) -> argparse.Namespace:
    """Parse the command line of a job. The option `--help` prints the help and ends the process with exit code 0.

    Args:
        job: Name of the job, a key of JOBS.
        arguments: The words after the job's name.

    Returns:
        The options. The attribute `assignments` lists the settings to override, each as `section.key=value`.

    Raises:
        UsageError: An option or a value is wrong, or two options exclude each other.
    """
    parser = parser_of(job)
    parsed = parser.parse_args(arguments)
    if reads_kafka(parsed) and parsed.sources:
        parser.error(f"--source kafka reads a topic, not files: leave out '{parsed.sources[0]}'")
    start, end = getattr(parsed, "start", None), getattr(parsed, "end", None)
    if start is not None and end is not None and end <= start:
        parser.error(f"--to {end} is not after --from {start}")
    if getattr(parsed, "as_of", None) is not None and (start is not None or end is not None):
        parser.error("--as-of stores nothing, so --from and --to cannot recompute anything: leave out one or the other")
    return parsed


def reads_kafka(parsed: argparse.Namespace) -> bool:
    """Return whether the command line asks the job to read a Kafka topic."""
    return getattr(parsed, "source", None) == KAFKA


def settings_of(parsed: argparse.Namespace) -> Settings:
    """Load the settings that a command line names, with its source description.

    Raises:
        UsageError: A file cannot be read, or a name or value is wrong.
    """
    source: str = getattr(parsed, "source", FILES)
    source_file: Path | None = getattr(parsed, "source_file", None)
    if source not in (FILES, KAFKA):
        if source_file is not None:
            raise UsageError(
                f"--source {source} and --source-file {source_file} both describe the source: leave out one"
            )
        source_file = DESCRIPTIONS / f"{source}.toml"
    return load_settings(parsed.conf_file, parsed.assignments, source_file)


def _sources(parser: argparse.ArgumentParser) -> None:
    kinds = ".csv, .tsv, .txt, .json, .jsonl, .parquet, each also .gz, .bz2 or .zst, or a Delta table"
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help=f"folders or files: {kinds} (default: the setting ingest.source)",
    )


def _description(parser: argparse.ArgumentParser, *transports: str) -> None:
    """Add the options that say how the records of the sources map to events."""
    kafka = "; kafka reads a topic instead of files" if KAFKA in transports else ""
    parser.add_argument(
        "--source",
        type=_source_name,
        default=FILES,
        metavar="NAME",
        help=f"format of the sources: rees46 (default) or another of conf/sources{kafka}",
    )
    parser.add_argument(
        "--source-file",
        type=Path,
        metavar="FILE",
        help="source description of your own, a TOML file with the section [source]; `inspect` proposes one",
    )
    parser.add_argument(
        "--accept-source",
        action="store_true",
        help="read on although the source description differs from the one that this lake was read with",
    )


def _source_name(text: str) -> str:
    known = [FILES, KAFKA, *sorted(file.stem for file in DESCRIPTIONS.glob("*.toml"))]
    if text not in known:
        raise argparse.ArgumentTypeError(f"there is no source '{text}'; there are {', '.join(known)}")
    return text


def _source(parser: argparse.ArgumentParser) -> None:
    _sources(parser)
    _description(parser, FILES, KAFKA)
    _topic(parser)
    parser.add_argument(
        "--from-start",
        action="store_true",
        help="kafka: read the topic from its earliest offset again; events that are known are dropped as repeats",
    )


def _topic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bootstrap-servers",
        action=_Setting,
        const="kafka.bootstrap_servers",
        metavar="HOST:PORT",
        help="Kafka brokers to connect to first (default: the setting kafka.bootstrap_servers)",
    )
    parser.add_argument(
        "--topic",
        action=_Setting,
        const="kafka.topic",
        metavar="NAME",
        help="Kafka topic (default: the setting kafka.topic)",
    )


class _Setting(argparse.Action):
    """An option that is short for `--set SECTION.KEY=VALUE`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.assignments = [*namespace.assignments, f"{self.const}={values}"]


def _trigger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trigger",
        type=checked(check_trigger),
        default=AVAILABLE_NOW,
        metavar="WHEN",
        help=f"'{AVAILABLE_NOW}': process the new data, then end (default); an interval like '10 seconds': stay up and "
        "start a micro-batch that often",
    )


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="*", metavar="FILE", help="event files (default: the store in data/store)")
    _description(parser)
    _user(parser, "user to show (default: the user with the most distinct products)")


def _user(parser: argparse.ArgumentParser, description: str) -> None:
    parser.add_argument("--user", metavar="ID", help=description)


def _lookup(parser: argparse.ArgumentParser) -> None:
    _user(parser, "user whose list to print")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="FILE", help="files of one log, or folders of them")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the proposed description, like shop.toml")
    parser.add_argument("--overwrite", action="store_true", help="write: replace the file if it exists")


def _ingest(parser: argparse.ArgumentParser) -> None:
    _source(parser)
    _trigger(parser)


def _run(parser: argparse.ArgumentParser) -> None:
    _source(parser)
    _span(parser)
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for another run on this lake to end (default: end at once with exit code 75)",
    )


def _trends(parser: argparse.ArgumentParser) -> None:
    _span(parser)
    parser.add_argument(
        "--as-of",
        type=moment,
        metavar="TIME",
        help="print the trends of the events before this time (UTC), late arrivals included; store nothing",
    )


def _span(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="start", type=moment, metavar="TIME", help="recompute trends from this time (UTC) on"
    )
    parser.add_argument("--to", dest="end", type=moment, metavar="TIME", help="recompute trends up to this time (UTC)")


def _similarity(parser: argparse.ArgumentParser) -> None:
    _trigger(parser)
    parser.add_argument("--rebuild", action="store_true", help="empty the tables and count again from the first event")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="*", metavar="FILE", help="event files (default: the lake's events)")
    _description(parser)
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=PROTOCOLS[0],
        help="what to predict; next-item: the next interaction of a session; second-half: the rest of a session; "
        "future: what users do after the split, from all that they did before it (default: next-item)",
    )
    parser.add_argument(
        "--split",
        type=share,
        default=0.8,
        metavar="SHARE",
        help="share of the sessions, in order of time, to learn from (default: 0.8)",
    )
    parser.add_argument(
        "--max-queries",
        type=count,
        default=20_000,
        metavar="N",
        help="largest number of queries; of more, a sample by hash is taken (default: 20000)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per method and slice, with and without repeats"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="search for better settings on an inner split of the lake's events; the next start continues where this "
        "one stopped",
    )
    parser.add_argument(
        "--budget",
        type=count,
        default=30,
        metavar="MINUTES",
        help="tune: begin no new trial after this many minutes (default: 30)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tuned.toml"),
        metavar="FILE",
        help="tune: file to write the chosen settings and the evidence to, for --conf-file (default: tuned.toml)",
    )


def _replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="event files, or folders of them")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="play into a folder: one file every --slice seconds")
    _topic(parser)
    pace = parser.add_mutually_exclusive_group(required=True)
    pace.add_argument("--rate", type=positive, metavar="N", help="play N events a second")
    pace.add_argument("--speed", type=positive, metavar="X", help="play X times as fast as the events happened")
    parser.add_argument("--slice", type=positive, default=1.0, metavar="S", help="deliver every S seconds (default: 1)")
    parser.add_argument(
        "--position",
        type=Path,
        metavar="FILE",
        help="file that keeps the position for the next start (default: FOLDER/_replay.json, or replay-TOPIC.json in "
        "the working folder)",
    )
    parser.add_argument("--restart", action="store_true", help="play from the beginning again")


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print what the job would do, and change nothing")


def _forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user", metavar="ID", nargs="+", action="extend", default=[], help="ids of the users to forget"
    )
    parser.add_argument("--users-file", type=Path, metavar="FILE", help="text file of users to forget, one id per line")
    parser.add_argument("--refuse", action="store_true", help="also reject every later event of these users")
    parser.add_argument(
        "--vacuum",
        action="store_true",
        help="delete the files of older versions at once (no table can then be read as of an earlier time)",
    )
    _dry_run(parser)


def _restore(parser: argparse.ArgumentParser) -> None:
    _sources(parser)
    _description(parser)
    parser.add_argument("--to", type=moment, metavar="TIME", required=True, help="time to go back to (UTC)")
    _dry_run(parser)


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        dest="tables",
        action="append",
        default=[],
        choices=VERIFIED,
        metavar="NAME",
        help=f"check only this table, of {', '.join(VERIFIED)}; may be repeated (default: all of them)",
    )


def _history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="number of versions to show (default: 20)")


def _sql(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", help="SQL query, like \"select * from trends where direction = 'rising'\"")
    parser.add_argument(
        "--limit", type=int, default=100, metavar="N", help="largest number of rows to print (default: 100)"
    )


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--prometheus",
        type=Path,
        metavar="FILE",
        help="also write the figures to a file for the textfile collector of Prometheus's node exporter, like "
        "/var/lib/…/lambda_spark.prom",
    )


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "demo": _demo,
    "run": _run,
    "ingest": _ingest,
    "trends": _trends,
    "similarity": _similarity,
    "recommend": lambda parser: _user(parser, "print the list of one user at once; store nothing"),
    "lookup": _lookup,
    "inspect": _inspect,
    "evaluate": _evaluate,
    "status": _status,
    "verify": _verify,
    "replay": _replay,
    "maintain": _dry_run,
    "migrate": _dry_run,
    "forget": _forget,
    "restore": _restore,
    "history": _history,
    "sql": _sql,
}


def checked(convert: Callable[[str], Value]) -> Callable[[str], Value]:
    """Wrap a function that converts a text, so that argparse prints the message of a UsageError it raises."""

    @wraps(convert)
    def converted(text: str) -> Value:
        try:
            return convert(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


@checked
def share(text: str) -> float:
    """Read a number between 0 and 1, both excluded."""
    return _number_below(1, text, "a share is a number between 0 and 1")


@checked
def positive(text: str) -> float:
    """Read a finite number above 0."""
    return _number_below(float("inf"), text, "the value must be a number above 0")


def _number_below(limit: float, text: str, rule: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < limit:
        raise UsageError(f"{rule}, not '{text}'")
    return number


@checked
def count(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise UsageError(f"the value must be a whole number above 0, not '{text}'")
    return int(text)


@checked
def moment(text: str) -> datetime:
    """Read a time in ISO 8601 without a time zone, because every time on the command line is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"a time is written 2019-11-01 or 2019-11-01T12:30:00, not '{text}'") from None
    if time.tzinfo is not None:
        raise UsageError(f"times are UTC: write '{text}' without a zone")
    return time
