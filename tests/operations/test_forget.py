"""Tests that `forget` leaves all tables as if the user had never come, and no byte about the user."""

import re
from datetime import date, datetime

import pyarrow.parquet
import pytest
from pyspark.sql import functions as F

from jobs.forget import asked_for, main
from jobs.verify import main as verify
from lambda_spark.batch.refresh import update_trends
from lambda_spark.errors import CheckpointError, LakeError, UsageError
from lambda_spark.operations.forget import BY_USER, Certificate, forget, preview
from lambda_spark.report.operations import certificate_lines
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.settings import RecommendationSettings, Settings, SimilaritySettings, TrendSettings
from lambda_spark.speed.co_interactions import known_items, total_counts
from lambda_spark.speed.update import start_over, update_similarity
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.table_handle import TableHandle
from lambda_spark.storage.tables import (
    BASKETS,
    BRAND_TRENDS,
    CATEGORY_TRENDS,
    CO_INTERACTIONS,
    DEMAND,
    EVENTS,
    PRODUCTS,
    RECOMMENDATIONS,
    REJECTED_EVENTS,
    SIMILAR_ITEMS,
    TRENDS,
    USER_TRENDS,
)
from tests.deliveries import contents, deliver, differing, event, random_events, text_user, with_ids
from tests.in_session import do

SETTINGS = Settings(trends=TrendSettings(min_change=2, min_z=0.5))
USER = 7_310_045_899_123
SESSION = "a-session-of-theirs"
USERS_OWN_PRODUCT = 88_001_122
OTHERS_EVENTS = random_events(4, 60)
# The user's events include the store's first and newest event. They also include a product that no other user has, and
# a session that other users share.
USERS_EVENTS = [
    event(datetime(2019, 9, 20), "view", 3, USER, SESSION),
    event(datetime(2019, 10, 2, 0, 3), "view", 1, USER, "s"),
    event(datetime(2019, 10, 2, 0, 4), "view", 2, USER, "s"),
    event(datetime(2019, 10, 2, 0, 5), "purchase", USERS_OWN_PRODUCT, USER, SESSION),
    event(datetime(2019, 10, 21, 5), "purchase", 5, USER, SESSION),
    event(datetime(2019, 11, 5), "view", 4, USER, SESSION),
]
USERS_BAD_LINE = event(datetime(2019, 10, 21, 6), "look", 5, USER, SESSION)
OTHERS_BAD_LINE = event(datetime(2019, 10, 21, 6), "look", 5, 2, "s")


@pytest.fixture(scope="module", params=["integer", pytest.param("text", marks=pytest.mark.long)])
def ids(request):
    """The kind of the lake's ids. Texts take part in the long tests, because `tests/test_ids.py` has a short one."""
    return request.param


@pytest.fixture
def named(ids):
    """A function that returns the id of a user whom a line names by a number."""
    return text_user if ids == "text" else int


def a_lake(session, folder, ids, deliveries):
    lake = Lake.open(session, str(folder / "lake"), create=True)
    for name, lines in deliveries.items():
        deliver(lake, folder / "in", name, with_ids(ids, lines), ids=ids)
        update_similarity(lake, SimilaritySettings())
    update_trends(lake, SETTINGS.trends)
    update_recommendations(lake, RecommendationSettings())
    return folder / "lake"


@pytest.fixture(scope="module")
def template(session, tmp_path_factory, ids):
    """A lake with two deliveries of events, in which the user appears both times."""
    first, second = (
        [*OTHERS_EVENTS[:40], *USERS_EVENTS[1:4], USERS_BAD_LINE],
        [*OTHERS_EVENTS[40:], USERS_EVENTS[0], *USERS_EVENTS[4:], OTHERS_BAD_LINE],
    )
    return a_lake(session, tmp_path_factory.mktemp("forgetting"), ids, {"one": first, "two": second})


@pytest.fixture(scope="module")
def never(session, tmp_path_factory, ids):
    """The rows of all tables in a lake that never had events of the user."""
    folder = a_lake(session, tmp_path_factory.mktemp("never"), ids, {"all": [*OTHERS_EVENTS, OTHERS_BAD_LINE]})
    return comparable_contents(Lake.open(session, str(folder)))


def comparable_contents(lake):
    """Return the rows of every table, without columns about their origin. Baskets and counts are summed up by key."""
    origin = ("source", "ingested_at", "ingest_batch")
    versions = [name for name in RECOMMENDATIONS.column_names if name.endswith("_version")]
    compared = {
        table.name: contents(lake, table, *origin, *versions)
        for table in (
            EVENTS,
            REJECTED_EVENTS,
            PRODUCTS,
            DEMAND,
            TRENDS,
            CATEGORY_TRENDS,
            BRAND_TRENDS,
            USER_TRENDS,
            SIMILAR_ITEMS,
            RECOMMENDATIONS,
        )
    }
    compared["baskets"] = sorted(map(repr, known_items(lake[BASKETS].read()).collect()))
    compared["co_interactions"] = sorted(map(repr, total_counts(lake[CO_INTERACTIONS].read()).collect()))
    return compared


def traces(folder):
    """List the files that hold a trace of the user. Parquet files are read as tables, all others as text.

    Only rows are searched for the user's own product, because Delta's log may hold its id as a minimum or maximum.
    """
    files_with_traces = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix == ".parquet":
            text = str(pyarrow.parquet.read_table(file, partitioning=None).to_pylist())
            text += str(pyarrow.parquet.read_metadata(file).to_dict())
        else:
            text = file.read_bytes().decode("utf-8", "replace")
        searched = (
            (USER, SESSION, USERS_OWN_PRODUCT)
            if file.suffix == ".parquet" and "_delta_log" not in str(file)
            else (USER, SESSION)
        )
        if any(str(trace) in text for trace in searched):
            files_with_traces.append(str(file.relative_to(folder)))
    return files_with_traces


def checkpoint_logs(lake):
    """Let Delta write a checkpoint of every table's log, as Delta does every ten commits."""
    for table in lake.present():
        log = lake.spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(
            lake.spark._jsparkSession, lake[table].location
        )
        log.checkpoint()


def test_every_table_is_as_if_the_user_had_never_come_and_no_byte_is_left(small, never, ids, named, tmp_path):
    folder = tmp_path / "lake"
    checkpoint_logs(small)
    kinds = {name.split("/")[0] for name in traces(folder)}
    assert {"events", "rejected_events", "user_trends", "baskets", "recommendations", "co_interactions"} <= kinds
    (folder / "_logs").mkdir()
    (folder / "_logs" / "names.log").write_text(f"no user {named(USER)} in 12.csv\n")
    (folder / "_logs" / "other.log").write_text(f"no user {str(named(USER))[:-1]} in 12.csv\n")
    found = preview(small, {named(USER), named(999)}, refuse=True)
    assert (found.users, found.found) == (2, 1)
    assert (found.rows["events"], found.rows["rejected_events"]) == (6, 1)

    done = forget(small, SETTINGS, {named(USER), named(999)}, refuse=True, erase=True)

    assert comparable_contents(small) == never
    assert differing(small) == []
    checkpoint_logs(small)
    assert traces(folder) == []
    assert (folder / "events" / "_delta_log").exists()
    assert (done.logs, [file.name for file in (folder / "_logs").iterdir()]) == (1, ["other.log"])
    text = "\n".join(certificate_lines(done, dry_run=False))
    assert "2 users asked for, 1 of them known" in text
    assert "new events of these users are refused" in text
    assert str(USER) not in text
    assert [source.rsplit("/", 1)[-1] for source in done.sources] == ["one.csv", "two.csv"]

    late = [USERS_EVENTS[2], USERS_BAD_LINE, event(datetime(2019, 10, 22), "view", 1, 999, "s"), OTHERS_EVENTS[0]]
    late = with_ids(ids, late)
    other = with_ids(ids, [event(datetime(2019, 10, 22), "view", 1, 3, "n")])
    account = deliver(small, tmp_path / "in", "late", late + other)
    assert (account.lines, account.events, account.repeats, account.rejected) == (5, 1, 1, 3)
    refused = small[REJECTED_EVENTS].read().where(F.array_contains("reasons", "user is refused")).collect()
    assert [row.raw for row in refused] == [None] * 3
    assert traces(folder) == []
    assert deliver(small, tmp_path / "in", "later", late).repeats == 4, "refused lines are dropped as repeats"


@pytest.mark.long
def test_several_users_are_forgotten_at_once(small, named):
    users = {named(USER), named(1), named(2)}
    done = forget(small, SETTINGS, users, refuse=False, erase=False)
    assert (done.users, done.found) == (3, 3)
    for table in BY_USER:
        rows = small[table].read()
        assert not rows.isEmpty()
        assert rows.where(F.col("user_id").isin(users)).isEmpty()
    assert differing(small) == []


@pytest.mark.long
def test_a_dry_run_counts_the_rows_and_changes_nothing(small, named, capsys):
    before = small.versions(*small.present())
    do("forget", main, small.spark, "--dry-run", "--user", named(USER), "--refuse", "--lake", small.path)
    text = capsys.readouterr().out
    assert "This would be removed: 1 users asked for, 1 of them known to this lake" in text
    assert re.search(r"^events +6 rows removed +v\d+ +-$", text, re.MULTILINE)
    assert "new events of these users would be refused" in text
    assert str(USER) not in text
    assert small.versions(*small.present()) == before


def test_the_certificate_says_that_frozen_trends_may_still_count_the_user():
    done = Certificate(1, 1, rows={"events": 2}, before={"events": 3}, retention_cutoff=date(2019, 10, 8))
    assert any("trends before 2019-10-08 are frozen" in line for line in certificate_lines(done, dry_run=False))


@pytest.mark.long
@pytest.mark.parametrize("stop", [3, 4, 5, 6])
def test_an_interrupted_forget_is_finished_by_the_next_start(small, never, named, monkeypatch, stop, tmp_path):
    """Each test case interrupts the first `forget` one write later than the previous case."""
    interrupted(small, monkeypatch, {named(USER)}, stop)
    forget(small, SETTINGS, {named(USER)}, refuse=False, erase=False)
    compared = comparable_contents(small)
    assert {name for name, rows in compared.items() if rows != never[name]} == set()
    assert small[EVENTS].properties()["forgetting"] == ""


def interrupted(lake, monkeypatch, users, stop):
    with monkeypatch.context() as patched:
        interrupt_after_writes(patched, stop)
        with pytest.raises(KeyboardInterrupt):
            forget(lake, SETTINGS, users, refuse=False, erase=False)


@pytest.mark.long
def test_an_interrupted_forget_cannot_be_finished_with_other_users(small, named, monkeypatch, capsys):
    """Otherwise the second `forget` would clear the record of the first, although rows of the first users remain."""
    interrupted(small, monkeypatch, {named(USER)}, 3)
    for others in ({named(1)}, {named(USER), named(1)}):
        with pytest.raises(LakeError, match=r"of other users was interrupted .* with those users first"):
            forget(small, SETTINGS, others, refuse=False, erase=False)
    do("verify", verify, small.spark, "--lake", small.path)
    assert "a `forget` is under way, or was interrupted" in capsys.readouterr().out
    forget(small, SETTINGS, {named(USER)}, refuse=False, erase=False)
    assert differing(small) == []


@pytest.mark.long
@pytest.mark.parametrize("stop", [1, 4])
def test_a_rebuild_between_two_starts_brings_no_user_back(small, never, named, monkeypatch, stop):
    """The similarity job loses its checkpoint between two starts of `forget`, so its tables must be rebuilt."""
    interrupted(small, monkeypatch, {named(USER)}, stop)
    small.files.delete("_checkpoints/similarity")
    with pytest.raises(CheckpointError, match="similarity --rebuild"):
        forget(small, SETTINGS, {named(USER)}, refuse=False, erase=False)
    start_over(small, SimilaritySettings())
    update_similarity(small, SimilaritySettings())
    forget(small, SETTINGS, {named(USER)}, refuse=False, erase=False)
    compared = comparable_contents(small)
    assert {name for name, rows in compared.items() if rows != never[name]} == set()


@pytest.mark.long
def test_ingest_reads_nothing_while_the_table_of_refused_users_is_missing(small, ids, named, tmp_path):
    lines = with_ids(ids, [event(datetime(2019, 10, 22), "view", 1, 999, "s")])
    forget(small, SETTINGS, {named(999)}, refuse=True, erase=False)
    small.files.delete("refused_users")
    with pytest.raises(LakeError, match=r"refused_users is missing.*forget --users-file FILE --refuse"):
        deliver(small, tmp_path / "in", "late", lines)
    forget(small, SETTINGS, {named(999)}, refuse=True, erase=False)
    account = deliver(small, tmp_path / "in", "later", lines)
    assert (account.events, account.repeats + account.rejected) == (0, account.lines)


def interrupt_after_writes(patched, count):
    left = [count]

    def ending(write):
        def call(*arguments, **named):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return write(*arguments, **named)

        return call

    for name in ("set_properties", "delete_keys", "overwrite", "rewrite_dates", "note"):
        patched.setattr(TableHandle, name, ending(getattr(TableHandle, name)))


@pytest.mark.long
def test_forgetting_an_unknown_user_changes_nothing(small, named):
    before = small.versions(*small.present())
    done = forget(small, SETTINGS, {named(999)}, refuse=False, erase=False)
    assert (done.found, done.rows) == (0, {})
    assert small.versions(*small.present()) == before


def test_a_list_of_users_is_read_whole_or_not_at_all(tmp_path):
    file = tmp_path / "users.txt"
    file.write_text("user_id\n12\n\n013\n")
    assert asked_for(["5"], file, "integer") == {5, 12, 13}
    assert asked_for(["u-1"], file, "text") == {"u-1", "12", "013"}
    file.write_text("12\nme\n")
    with pytest.raises(UsageError, match="no user id in line 2; nothing was forgotten"):
        asked_for([], file, "integer")
    with pytest.raises(UsageError, match="name users"):
        asked_for([], None, "integer")
    with pytest.raises(UsageError, match="a user id of this lake is a whole number above 0, not 'all'"):
        asked_for(["12", "all"], None, "integer")
