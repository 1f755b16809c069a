"""The command line of every job. Free of Spark, so that `--help` and a wrong option answer at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from lambda_spark.cli.argument_types import checked, count, moment, positive, share, share_or_none, user_id
from lambda_spark.errors import UsageError
from lambda_spark.settings import AVAILABLE_NOW, check_trigger

PROGRAM = "./spark-submit.sh"
PROJECT = Path(__file__).resolve().parents[1]

SOURCES = ("files", "kafka")
PROTOCOLS = ("next-item", "second-half", "future")

JOBS = {
    "demo": "the whole chain on a small store (or on your files) into a fresh lake, and its result",
    "run": "the whole chain once, incrementally: ingest, trends, similarity, recommend; for a scheduler",
    "ingest": "read event files or a Kafka topic into events, products and rejected_events",
    "trends": "batch layer: which demand rises and which wanes, per time bucket",
    "similarity": "speed layer: keep item co-interaction and similar_items up to date",
    "recommend": "serving layer: the list of every active user, or of one",
    "lookup": "the list that is written for a user, at once and without Spark",
    "verify": "recompute every table from events and compare; exit code 1 where they differ",
    "status": "rows, size, newest event and lag of every table, and what streams and jobs did last",
    "evaluate": "measure recommendations and baselines on what users did after a split in time",
    "maintain": "keep the lake small: put small files together, delete what nobody needs",
    "forget": "take users out of every table, as if they had never come",
    "restore": "undo a bad feed: take the lake back to a time, and read the files again without those it excludes",
    "history": "what each job wrote, when, and from which versions",
    "sql": "run a Spark SQL query; every table of the lake is a view by its name",
    "shell": "a PySpark shell; every table of the lake is a view by its name",
    "replay": "play event files as a live feed into a folder or a Kafka topic, at a chosen pace",
    "generate": "write the event log of a made-up store, for trials and benchmarks",
    "benchmark": "measure every layer beside what one would otherwise use, on one machine",
    "test": "install the development packages and run the tests",
}

_WITHOUT_LAKE = {"replay"}
_WITHOUT_SPARK = {"replay", "lookup"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def overview() -> str:
    """What `./spark-submit.sh --help` prints."""
    width = max(map(len, JOBS))
    lines = [f"  {name:<{width}}  {text}" for name, text in JOBS.items()]
    return "\n".join([f"Usage: {PROGRAM} JOB [options]", "", *lines, "", f"{PROGRAM} JOB --help tells more."])


def parse(job: str, arguments: list[str]) -> argparse.Namespace:
    """The arguments of a job. Raises UsageError for wrong ones; `--help` prints and leaves with code 0."""
    parser = _Parser(
        prog=f"{PROGRAM} {job}",
        description=JOBS[job][0].upper() + JOBS[job][1:] + ".",
        epilog="Exit codes: 0 done, 1 the job failed (or verify found a difference), 2 wrong use, "
        "75 another process is at it (try later).",
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
        help="settings (default: conf/lambda.toml)",
    )
    common.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting, like --set trends.bucket='30 minutes'; may be given again",
    )
    parsed = parser.parse_args(arguments)
    if reads_kafka(parsed) and parsed.sources:
        parser.error(f"--source kafka reads a topic, not '{parsed.sources[0]}'")
    start, end = getattr(parsed, "start", None), getattr(parsed, "end", None)
    if start is not None and end is not None and end <= start:
        parser.error(f"--to {end} is not after --from {start}")
    if getattr(parsed, "as_of", None) is not None and (start is not None or end is not None):
        parser.error("--as-of stores nothing, so there is nothing to recompute by --from and --to")
    return parsed


def reads_kafka(parsed: argparse.Namespace) -> bool:
    return getattr(parsed, "source", None) == "kafka"


def _sources(parser: argparse.ArgumentParser) -> None:
    kinds = ".csv, .json, .jsonl, .ndjson, .parquet, each also .gz"
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help=f"folders or files: {kinds} (default: the setting ingest.source)",
    )


def _source(parser: argparse.ArgumentParser) -> None:
    _sources(parser)
    parser.add_argument(
        "--source",
        choices=SOURCES,
        default=SOURCES[0],
        help="read files (default), or a Kafka topic of JSON messages with REES46's names",
    )
    _topic(parser)
    parser.add_argument(
        "--from-start",
        action="store_true",
        help="kafka: read the topic from its earliest offset again; what is known is dropped as a repeat",
    )


def _topic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bootstrap-servers",
        action=_Setting,
        const="kafka.bootstrap_servers",
        metavar="HOST:PORT",
        help="Kafka brokers to ask first (default: the setting kafka.bootstrap_servers)",
    )
    parser.add_argument(
        "--topic", action=_Setting, const="kafka.topic", metavar="NAME", help="topic (default: the setting kafka.topic)"
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
        help=f"'{AVAILABLE_NOW}': take what is there and end (default); or an interval like '10 seconds', to stay up",
    )


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="*", metavar="FILE", help="event files (default: the store in data/store)")
    _user(parser, "whose view to show (default: one with a rich history)")


def _user(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--user", type=user_id, metavar="ID", help=text)


def _lookup(parser: argparse.ArgumentParser) -> None:
    _user(parser, "whose list")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _ingest(parser: argparse.ArgumentParser) -> None:
    _source(parser)
    _trigger(parser)


def _run(parser: argparse.ArgumentParser) -> None:
    _source(parser)
    _span(parser)
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for a run that is at work on this lake (default: leave at once with exit code 75)",
    )


def _trends(parser: argparse.ArgumentParser) -> None:
    _span(parser)
    parser.add_argument(
        "--as-of",
        type=moment,
        metavar="TIME",
        help="print the trends of the events before this time (late arrivals included); store nothing",
    )


def _span(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="start", type=moment, metavar="TIME", help="recompute trends from this time (UTC) on"
    )
    parser.add_argument("--to", dest="end", type=moment, metavar="TIME", help="recompute trends up to this time (UTC)")


def _similarity(parser: argparse.ArgumentParser) -> None:
    _trigger(parser)
    parser.add_argument("--rebuild", action="store_true", help="empty the tables and start over from the first event")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="*", metavar="FILE", help="event files (default: the lake's events)")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=PROTOCOLS[0],
        help="next-item: the next interaction of a session; second-half: the rest of a session; "
        "future: what users do later, from lists of before (default: next-item)",
    )
    parser.add_argument(
        "--split",
        type=share,
        default=0.8,
        metavar="SHARE",
        help="share of the sessions, by time, that is learnt from (default: 0.8)",
    )
    parser.add_argument(
        "--max-queries",
        type=count,
        default=20_000,
        metavar="N",
        help="ask at most so many questions, a sample by hash (default: 20000)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per method, repeats and slice")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="search the settings on an inner split of the lake's events; where it stops, the next start goes on",
    )
    parser.add_argument(
        "--budget",
        type=count,
        default=30,
        metavar="MINUTES",
        help="tune: begin no trial after (default: 30)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tuned.toml"),
        metavar="FILE",
        help="tune: where to write the chosen settings with the evidence, for --conf-file (default: tuned.toml)",
    )


def _replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="event files, or folders of them")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="play into a folder: a file every --slice seconds")
    _topic(parser)
    pace = parser.add_mutually_exclusive_group(required=True)
    pace.add_argument("--rate", type=positive, metavar="N", help="so many events a second")
    pace.add_argument("--speed", type=positive, metavar="X", help="X times as fast as they happened")
    parser.add_argument("--slice", type=positive, default=1.0, metavar="S", help="deliver every S seconds (default: 1)")
    for name, text in (
        ("repeats", "deliver this share of the lines twice, within an hour of the feed's clock"),
        ("disorder", "deliver this share up to a minute late"),
        ("lateness", "deliver this share an hour to two days late"),
    ):
        parser.add_argument(f"--{name}", type=share_or_none, default=0.0, metavar="SHARE", help=f"{text} (default: 0)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which lines these are (default: 0)")
    parser.add_argument(
        "--position",
        type=Path,
        metavar="FILE",
        help="where the position is kept, for the next start (default: FOLDER/_replay.json, or replay-TOPIC.json here)",
    )
    parser.add_argument("--restart", action="store_true", help="play from the beginning again")


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and change nothing")


def _forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user", type=user_id, metavar="ID", nargs="+", action="extend", default=[], help="users by id"
    )
    parser.add_argument("--users-file", type=Path, metavar="FILE", help="a text file with one user id in a line")
    parser.add_argument("--refuse", action="store_true", help="take in no more events of these users")
    parser.add_argument(
        "--vacuum",
        action="store_true",
        help="delete the files of older versions at once (no table can be read as it was before, then)",
    )
    _dry_run(parser)


def _restore(parser: argparse.ArgumentParser) -> None:
    _sources(parser)
    parser.add_argument("--to", type=moment, metavar="TIME", required=True, help="the time to go back to (UTC)")
    _dry_run(parser)


def _history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="show so many versions (default: 20)")


def _sql(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", help="like \"select * from trends where direction = 'rising'\"")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="print at most so many rows (default: 100)")


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--prometheus",
        type=Path,
        metavar="FILE",
        help="also write the figures for the node exporter's textfile collector, like /var/lib/…/lambda_spark.prom",
    )


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "demo": _demo,
    "run": _run,
    "ingest": _ingest,
    "trends": _trends,
    "similarity": _similarity,
    "recommend": lambda parser: _user(parser, "print the list of one user at once; store nothing"),
    "lookup": _lookup,
    "evaluate": _evaluate,
    "status": _status,
    "replay": _replay,
    "maintain": _dry_run,
    "forget": _forget,
    "restore": _restore,
    "history": _history,
    "sql": _sql,
}
