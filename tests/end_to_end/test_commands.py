"""Tests of the commands as a user types them, run as real processes or in the tests' own Spark session."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from datetime import datetime

import pytest
from deltalake import DeltaTable

from jobs.recommend import recommend
from jobs.run import run
from jobs.sql import sql
from jobs.trends import trends
from jobs.verify import main as verify
from lambda_spark.cli.arguments import JOBS
from lambda_spark.errors import UsageError
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import (
    BRAND_TRENDS,
    CATEGORY_TRENDS,
    DEMAND,
    EVENTS,
    PRODUCTS,
    RECOMMENDATIONS,
    SIMILAR_ITEMS,
    TRENDS,
)
from tests.commands import command, executable
from tests.deliveries import HEADER
from tests.in_session import do
from tests.sessions import PROJECT

PLANTS = json.loads((PROJECT / "data" / "planted_truth.json").read_text())

pytestmark = pytest.mark.process


def in_process(job, call, spark, folder, *arguments):
    return do(job, call, spark, *arguments, "--lake", folder / "lake")


def test_the_demo_prints_its_counts_and_its_results(demo):
    _, output = demo
    counts = PLANTS["counts"]
    account = re.search(r"([\d,]+) records read = ([\d,]+) events \+ ([\d,]+) repeats \+ ([\d,]+) rejected", output)
    lines, events, repeats, rejected = (int(number.replace(",", "")) for number in account.groups())
    assert (lines, events, repeats, rejected) == (
        counts["lines"],
        counts["events"],
        counts["repeats"],
        counts["broken"],
    )
    for part in ("Top rising products", "Top waning products", "Top rising categories", "Recently viewed"):
        assert part in output
    for part in (
        "Similar products",
        "with rising and",
        "Highest trend percentage",
        "Most similar product",
        "Recommended",
    ):
        assert part in output
    assert "Traceback" not in output


def detected_trends(lake):
    """Return (kind, week, key, direction) for each product, category and brand whose views rose or waned."""
    return {
        (kind, f"{row.bucket_start:%Y-%m-%d}", row[key], row.direction)
        for kind, key, table in (
            ("products", "product_id", TRENDS),
            ("categories", "category_code", CATEGORY_TRENDS),
            ("brands", "brand", BRAND_TRENDS),
        )
        for row in lake[table].read().where("signal = 'view' and direction != 'steady'").collect()
    }


PLANTED = {
    (kind, plant["bucket_start"], plant[key], plant["direction"])
    for kind, key in (("products", "product_id"), ("categories", "category_code"), ("brands", "brand"))
    for plant in PLANTS[kind]
}


def test_most_planted_trends_are_detected_and_few_others(demo, spark):
    folder, _ = demo
    detected = detected_trends(Lake.open(spark, str(folder / "lake")))
    opposite = {"rising": "waning", "waning": "rising"}
    assert not {(*plant[:3], opposite[plant[3]]) for plant in PLANTED} & detected
    # The demo's generator builds known trends into the store (PLANTED). The store has few views per product, so some
    # planted trends are not significant. Nearly all detected trends are planted trends or parts of planted trends.
    assert len(PLANTED & detected) >= 6
    assert len(detected) < 40


def test_without_a_bound_on_false_discoveries_all_planted_trends_are_detected(demo, spark, tmp_path):
    folder, _ = demo
    shutil.copytree(folder / "lake", tmp_path / "lake")
    in_process("trends", trends, spark, tmp_path, "--set", "trends.max_fdr=1")
    assert detected_trends(Lake.open(spark, str(tmp_path / "lake"))) >= PLANTED


INTERACTION_WORDS = {"viewed": "view", "put into the cart": "cart", "bought": "purchase"}
WEIGHTS = {"view": 1.0, "cart": 2.0, "purchase": 3.0}
STRONGEST = list(WEIGHTS)
COUNTS = r"(?P<word>rising in share|rising)(?P<where> in .+, where you looked)?: (?P<previous>\d+) → (?P<current>\d+)"
REASON = re.compile(
    r"(because you (?P<deed>viewed|put into the cart|bought) (?P<item>\d+)(; " + COUNTS + r" views (?P<when>.+))?"
    r"|" + re.sub(r"<(\w+)>", r"<fill_\1>", COUNTS) + r" views (?P<fill_when>.+)"
    r"|in demand(?P<in> in .+, where you looked)?: (?P<events>\d+) interactions since (?P<since>.+))"
)


def test_every_reason_is_true(demo, spark):
    """Parse the reason of every recommendation, and check each of its claims against the tables in plain Python."""
    folder, _ = demo
    lake = Lake.open(spark, str(folder / "lake"))
    bucket, when = datetime(2019, 11, 4), "in the week from 2019-11-04"
    in_bucket = f"signal = 'view' and bucket_start = timestamp '{bucket}'"
    trend = {row.product_id: row for row in lake[TRENDS].read().where(in_bucket).collect()}
    demand = defaultdict(int)
    # The counted demand spans eight weeks, including the last week, which is not complete.
    for row in lake[DEMAND].read().where("bucket_start between date'2019-09-23' and date'2019-11-11'").collect():
        demand[row.product_id] += row.events
    products = {row.product_id: row for row in lake[PRODUCTS].read().collect()}
    similar = {
        (row.product_id, row.similar_product_id): row.score
        for row in lake[SIMILAR_ITEMS].read().where("relation = 'viewed'").collect()
    }
    touched = {}
    for row in lake[EVENTS].read().where("event_type != 'remove_from_cart'").collect():
        latest, deed = touched.setdefault(row.user_id, {}).get(row.product_id, (row.event_time, "view"))
        strongest = max(deed, row.event_type, key=STRONGEST.index)
        touched[row.user_id][row.product_id] = (max(latest, row.event_time), strongest)
    kinds = set()
    for row in lake[RECOMMENDATIONS].read().collect():
        reason = REASON.fullmatch(row.reason)
        assert reason, row.reason
        items = sorted(touched[row.user_id].items(), key=lambda item: (-item[1][0].timestamp(), item[0]))[:10]
        contributions = {
            item: WEIGHTS[deed] * 0.5**place * similar.get((item, row.product_id), 0.0)
            for place, (item, (_, deed)) in enumerate(items)
        }
        moved = trend.get(row.product_id)
        is_rising = moved is not None and moved.direction == "rising"
        growth = moved.growth if moved is not None and moved.direction != "steady" else 0.0
        assert row.trend_growth == growth
        if reason["deed"]:
            item = int(reason["item"])
            assert item == row.because_of
            assert INTERACTION_WORDS[reason["deed"]] == touched[row.user_id][item][1]
            assert contributions[item] == pytest.approx(max(contributions.values()), abs=1e-9)
            assert row.score == pytest.approx(sum(contributions.values()) * (1 + growth), abs=1e-8)
            assert bool(reason["word"]) == is_rising
        else:
            assert row.score is None
            assert row.because_of is None
            assert sum(contributions.values()) == 0 or row.rank > 1
        near = reason["where"] or reason["fill_where"] or reason["in"]
        if near:
            category = products[row.product_id].category_id
            assert category in {products[item].category_id for item, _ in items}
            assert near == f" in {products[row.product_id].category_code or 'the category'}, where you looked"
        word = reason["word"] or reason["fill_word"]
        if word:
            prefix = "" if reason["word"] else "fill_"
            assert is_rising
            assert word == ("rising" if moved.current > moved.previous else "rising in share")
            assert (int(reason[f"{prefix}previous"]), int(reason[f"{prefix}current"])) == (
                moved.previous,
                moved.current,
            )
            assert reason[f"{prefix}when"] == when
        if reason["events"]:
            assert not is_rising
            assert int(reason["events"]) == demand[row.product_id]
            assert reason["since"] == "2019-09-23"
        kinds.add((reason["deed"], bool(reason["word"]), bool(reason["fill_word"]), bool(reason["in"]), bool(near)))
    assert len(kinds) >= 5, kinds


def test_the_planted_pairs_are_among_the_first_three_neighbours(demo):
    folder, _ = demo
    query = "select relation, product_id, similar_product_id from similar_items where rank <= 3"
    code, output, _ = command("sql", query, "--limit", 100_000, cwd=folder)
    assert code == 0
    found = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in output.splitlines()}
    for pair in PLANTS["pairs"]:
        a, b = str(pair["product_a"]), str(pair["product_b"])
        assert {(pair["relation"], a, b), (pair["relation"], b, a)} <= found, pair


def test_verify_finds_no_difference_after_the_demo_and_the_log_is_in_the_lake(demo, spark, capsys):
    folder, _ = demo
    assert in_process("verify", verify, spark, folder) == 0
    assert "all tables equal their recompute" in capsys.readouterr().out
    assert list((folder / "lake" / "_logs").glob("demo-*.log"))


def test_a_second_run_changes_nothing_and_a_run_with_a_new_file_updates_the_tables(demo, spark, tmp_path, capsys):
    folder, _ = demo
    shutil.copytree(folder / "lake", tmp_path / "lake")
    code, output, errors = command("run", PROJECT / "data" / "store", cwd=tmp_path)
    assert code == 0, output + errors
    assert "written: nothing" in output
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "new.csv").write_text(f"{HEADER}\n2019-11-13 23:00:00 UTC,view,5100135,1,a.b,acme,1.00,77,s\nbroken\n")
    in_process("run", run, spark, tmp_path, inbox)
    output = capsys.readouterr().out
    assert "2 records read = 1 events + 0 repeats + 1 rejected" in output
    assert re.search(r"trends: \d buckets recomputed \(new events\)", output)
    assert "similarity: 1 micro-batches, similar_items renewed (new events)" in output


def test_recommend_says_when_a_user_was_never_seen(demo, spark, capsys):
    folder, _ = demo
    in_process("recommend", recommend, spark, folder, "--user", 999_999_999_999)
    output = capsys.readouterr().out
    assert "was never seen" in output
    assert "rising: " in output


def test_trends_as_of_a_date_prints_the_past_and_stores_nothing(demo, spark, capsys):
    folder, _ = demo
    in_process("trends", trends, spark, folder, "--as-of", "2019-10-21")
    output = capsys.readouterr().out
    assert "Views in the week from 2019-10-14" in output
    assert "written: nothing" in output


def test_the_error_for_an_unknown_table_names_the_tables(demo, spark):
    folder, _ = demo
    with pytest.raises(UsageError, match=r"nowhere.*\(the tables are events, .*recommendations"):
        in_process("sql", sql, spark, folder, "select nothing from nowhere")
    with pytest.raises(UsageError, match="ingested_files is now called ingestion_log"):
        in_process("sql", sql, spark, folder, "select * from ingested_files")


def test_the_shell_has_every_table(demo):
    folder, _ = demo
    done = subprocess.run(
        [str(PROJECT / "spark-submit.sh"), "shell"],
        cwd=folder,
        input="print('rows:', spark.table('events').count())\n"
        "from lambda_spark.storage.locks import _readers\nprint('readers:', len(_readers))\n"
        "java = spark._jvm.java.lang.ProcessHandle.current().pid()\n"
        "print('archives:', open(f'/proc/{java}/maps').read().count('/.venv/classes-') > 0)\nexit()\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert f"rows: {PLANTS['counts']['events']}" in done.stdout
    assert "readers: 1" in done.stdout, "the shell holds no reader's lock, so vacuum could delete its files"
    assert "archives: True" in done.stdout, "the shell's Java does not use the archive of Spark's classes"
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trend"], "there is no job 'trend'"),
        (["run", "--sets", "x=1"], "unrecognized arguments: --sets"),
        (["run", "--set", "trends.buckets=7 days"], "did you mean 'bucket'?"),
        (["ingest", "nowhere.csv"], "nowhere.csv: no such file or folder"),
        (["similarity", "--trigger", "soon"], "is neither 'available-now' nor an interval"),
        (["trends", "--as-of", "yesterday"], "a time is written 2019-11-01"),
        (["trends", "--from", "2019-11-08", "--to", "2019-11-01"], "--to 2019-11-01 00:00:00 is not after --from 2019"),
        (["trends", "--from", "2019-11-01", "--as-of", "2019-11-08"], "--as-of stores nothing"),
        (["run", "--conf-file", "none.toml"], "none.toml: No such file"),
        (["restore", "--dry-run"], "the following arguments are required: --to"),
    ],
)
def test_wrong_use_prints_one_line_and_exits_with_code_2(tmp_path, arguments, message):
    code, output, errors = command(*arguments, cwd=tmp_path)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not output
    assert list(tmp_path.iterdir()) == [], "the command wrote files"


def test_a_folder_that_is_no_lake_is_refused_and_stays_unchanged(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    code, output, errors = command("run", PROJECT / "data" / "store", "--lake", tmp_path, cwd=tmp_path)
    assert code == 2
    assert "is no lake: it holds 'holiday.jpg'" in output + errors
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_every_job_has_a_help_text(tmp_path):
    code, output, _ = command("--help", cwd=tmp_path)
    assert code == 0
    jobs = re.findall(r"^  (\w+) ", output, re.MULTILINE)
    assert jobs == list(JOBS)
    for job in set(jobs) - {"test"}:
        code, output, _ = command(job, "--help", cwd=tmp_path)
        assert code == 0
        assert output.startswith("usage: ")


@pytest.mark.parametrize("java", ["none", "11"])
def test_without_a_supported_java_the_message_says_what_to_install(tmp_path, java):
    if java != "none":
        executable(tmp_path / "bin" / "java", f"echo 'openjdk version \"{java}.0.2\"' >&2")
    home = {"JAVA_HOME": str(tmp_path)}
    code, _, errors = command("run", cwd=tmp_path, **home)
    assert code == 2
    assert "install Java 17 or 21" in errors
    assert len(errors.splitlines()) == 1


def test_a_live_ingest_reads_new_files_and_says_when_it_is_stopped(tmp_path):
    renewing = ["--set", "ingest.refresh_interval=0 minutes"]
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "one.csv").write_text(f"{HEADER}\n2019-11-13 23:00:00 UTC,view,5,1,a.b,acme,1.00,77,s\n")
    live = subprocess.Popen(
        [str(PROJECT / "spark-submit.sh"), "ingest", "inbox", "--trigger", "2 seconds", *renewing],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        lines = iter(live.stdout.readline, "")
        assert any("micro-batch 0: 1 files, 1 records" in line for line in lines)
        (inbox / "two.csv").write_text(f"{HEADER}\n2019-11-13 23:01:00 UTC,view,6,1,a.b,acme,1.00,77,s\n")
        assert any("micro-batch 1: 1 files, 1 records" in line for line in lines)
        end = time.monotonic() + 120
        while sorted(DeltaTable(tmp_path / "lake" / "products").to_pyarrow_table()["product_id"].to_pylist()) != [5, 6]:
            assert live.poll() is None
            assert time.monotonic() < end
            time.sleep(0.5)
        os.killpg(live.pid, signal.SIGINT)
        rest = live.stdout.read()
    finally:
        live.kill()
        live.wait()
    assert "ingest: stopped; what is committed stays" in rest
    assert "Traceback" not in rest
