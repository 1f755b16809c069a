"""Tests of the project's promise 3: each line of a bad file becomes an event, a rejection with reasons, or a repeat.

The job itself prints that lines read = events + repeats + rejected. The tests do not trust these counts. The tests
count the lines in Python, and count the events and rejections in the tables.
"""

from __future__ import annotations

import gzip
import os
import re
from collections import Counter, defaultdict
from urllib.parse import unquote

import pytest
from pyspark.sql import functions as F

from lambda_spark.ingestion.ingest import ingest
from lambda_spark.ingestion.micro_batch import Account
from lambda_spark.settings import IngestSettings
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, INGESTION_LOG, REJECTED_EVENTS
from tests.faults.bad_files import CORPUS, FORMULAS, csv, line
from tests.faults.fuzz import fuzzed, judged
from tests.faults.histories import HEADER
from tests.faults.killing import run_job
from tests.faults.oracle import Event


def ingest_inbox(lake, inbox):
    return ingest(lake, [str(inbox)], IngestSettings())


class Ingested:
    """The result of ingesting a folder of bad files. Each file has a log entry, events and rejections."""

    def __init__(self, lake: Lake, account: Account) -> None:
        self.account = account
        self.files = {name_of(row.source): row for row in lake[INGESTION_LOG].read().collect()}
        self.events = Counter(
            {name_of(row.source): row["count"] for row in lake[EVENTS].read().groupBy("source").count().collect()}
        )
        self.rejected = defaultdict(list)
        for row in lake[REJECTED_EVENTS].read().withColumn("raw", F.left("raw", F.lit(200))).collect():
            self.rejected[name_of(row.source)].append(row)
        self.brands = {row.brand for row in lake[EVENTS].read().where("source like '%/formulas.csv'").collect()}


def name_of(uri):
    return unquote(uri.rsplit("/", 1)[-1])


@pytest.fixture(scope="module")
def corpus(session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    inbox = folder / "in"
    inbox.mkdir()
    for bad in CORPUS:
        (inbox / bad.name).write_bytes(bad.content)
    lake = Lake.open(session, str(folder / "lake"), create=True)
    return Ingested(lake, ingest_inbox(lake, inbox))


@pytest.mark.parametrize("bad", CORPUS, ids=lambda bad: bad.name)
def test_a_bad_file_has_the_expected_events_rejections_or_refusal(corpus, bad):
    file, rejected = corpus.files[bad.name], corpus.rejected[bad.name]
    if bad.refused:
        assert len(rejected) == 1
        assert rejected[0].raw is None, "the whole file is one rejection"
        assert bad.refused in rejected[0].reasons[0]
        assert (file.lines, file.events, file.repeats, file.rejected) == (1, 0, 0, 1)
        return
    assert corpus.events[bad.name] == bad.events
    reasons = (re.sub('"[^"]*"', '"…"', reason) for row in rejected for reason in row.reasons)
    assert Counter(reasons) == Counter(bad.rejected)
    assert (file.events, file.rejected, file.repeats) == (bad.events, len(rejected), 0)
    assert (file.nulled, file.ignored, file.refused) == (bad.nulled, 0, False)
    assert file.lines == bad.events + len(rejected)


def test_the_account_counts_every_line_and_every_refused_file(corpus):
    refused = {bad.name for bad in CORPUS if bad.refused}
    assert len(corpus.account.unreadable) == len(refused)
    assert corpus.account.parts == len(CORPUS)
    assert corpus.account.events == sum(corpus.events.values()) == sum(bad.events for bad in CORPUS)
    assert corpus.account.rejected == sum(map(len, corpus.rejected.values()))


def test_the_reason_of_a_refused_file_names_no_user(corpus):
    """A file has no header line, so its first event is read as the header. A message could then show the user."""
    [row] = corpus.rejected["no-header.csv"]
    expected = "no column event_time, event_type, product_id, user_id among its 9 columns (view, acme). "
    assert row.reasons[0].startswith(expected)


def test_formulas_and_html_are_stored_unchanged(corpus):
    assert corpus.brands == {None, *FORMULAS} - {"\\N", "null"}, "two of the texts mean null"


def test_files_without_line_ends_are_refused_and_the_other_files_are_ingested(lake, tmp_path):
    """A file with 16 MB and no line end is refused, because a longer line would fill the memory."""
    inbox = tmp_path / "in"
    inbox.mkdir()
    for name, start in (("lineless", b""), ("after-a-header", csv())):
        content = start + b"x" * (40 * 2**20)
        (inbox / f"{name}.csv").write_bytes(content)
        (inbox / f"{name}.csv.gz").write_bytes(gzip.compress(content, 1))
    (inbox / "good.csv").write_bytes(csv(line(1)))
    account = ingest_inbox(lake, inbox)
    assert (account.lines, account.events, account.rejected) == (5, 1, 4)
    assert all("no line end in 16 MB" in file.reason for file in account.unreadable)


@pytest.mark.long
@pytest.mark.process
def test_a_gigabyte_without_a_line_end_is_refused_although_the_heap_is_smaller(tmp_path):
    """The job has a Java heap of 1 GB. Each of two input files is a single line of 1 GB."""
    inbox = tmp_path / "in"
    inbox.mkdir()
    for opened, name in ((open, "plain.csv"), (gzip.open, "compressed.csv.gz")):
        with opened(inbox / name, "wb") as file:
            file.write(csv())
            for _ in range(64):
                file.write(b"x" * (16 * 2**20))
    (inbox / "good.csv").write_bytes(csv(line(1)))
    ended = run_job("ingest", str(inbox), "--lake", str(tmp_path / "lake"))
    assert ended.code == 1, ended.output
    assert "no line end in 16 MB" in ended.output
    assert "3 records read = 1 events + 0 repeats + 2 rejected" in ended.output


def assert_fuzzed_lines_are_all_accounted_for(lake, inbox, count, seed):
    """Ingest `count` randomly damaged lines and check that every line is in the right table.

    A line that is certainly valid must be in `events`, and one that is certainly invalid in `rejected_events`. A line
    that `judged` cannot decide must be in one of the two tables.
    """
    lines = list(fuzzed(count, seed))
    parts = 4
    for part in range(parts):
        (inbox / f"{part}.csv").write_bytes(b"\n".join([HEADER.encode(), *lines[part::parts], b""]))
    account = ingest_inbox(lake, inbox)
    assert account.unreadable == ()
    assert account.lines == count
    assert account.lines == account.events + account.repeats + account.rejected
    rows = lake[REJECTED_EVENTS].read().select(F.coalesce("raw_bytes", F.col("raw").cast("binary")).alias("line"))
    rejected = {bytes(row.line) for row in rows.collect()}
    assert len(rejected) == account.rejected
    events, invalid, undecided = set(), set(), set()
    for text in set(lines):
        verdict = judged(text)
        if verdict is None:
            invalid.add(text)
        elif isinstance(verdict, str):
            undecided.add(text)
        else:
            events.add(verdict)
    assert invalid <= rejected
    assert rejected <= invalid | undecided, "a valid line was rejected, or a rejected line is in no file"
    known = known_events(lake)
    assert events <= known
    assert len(known) == account.events
    assert len(known) <= len(events) + len(undecided - rejected)
    return account


def known_events(lake):
    rows = lake[EVENTS].read().drop("event_id", "event_date", "source", "ingested_at", "ingest_batch", "nulled_fields")
    return {Event(*row) for row in rows.toLocalIterator()}


def test_fuzzed_lines_are_all_accounted_for(lake, tmp_path):
    inbox = tmp_path / "in"
    inbox.mkdir()
    account = assert_fuzzed_lines_are_all_accounted_for(lake, inbox, 5_000, seed=1)
    assert min(account.events, account.rejected, account.repeats) > 300, "too few events, rejections or repeats"


@pytest.mark.long
def test_a_million_fuzzed_lines_are_all_accounted_for(lake, tmp_path):
    """Run with `LINES=1000000 SEED=1 ./spark-submit.sh test tests/faults/test_bad_input.py -m long -k million -s`."""
    inbox = tmp_path / "in"
    inbox.mkdir()
    count, seed = int(os.environ.get("LINES", "1000000")), int(os.environ.get("SEED", "1"))
    print(assert_fuzzed_lines_are_all_accounted_for(lake, inbox, count, seed))
