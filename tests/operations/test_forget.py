"""Users who are forgotten: every table as if they had never come, and no byte of them left."""

import re
from datetime import date, datetime

import pyarrow.parquet
import pytest
from pyspark.sql import functions as F

from jobs.forget import asked_for, main
from jobs.verify import main as verify
from lambda_spark.batch.refresh import refresh as refresh_trends
from lambda_spark.errors import CheckpointError, LakeError, UsageError
from lambda_spark.operations.forget import BY_USER, Certificate, forget, look
from lambda_spark.report.operations import certificate_lines
from lambda_spark.serving.refresh import refresh as refresh_recommendations
from lambda_spark.settings import RecommendationSettings, Settings, SimilaritySettings, TrendSettings
from lambda_spark.speed.co_interactions import known_items, total_counts
from lambda_spark.speed.update import start_over, update
from lambda_spark.storage.lake import Lake
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
from tests.deliveries import contents, deliver, differing, event, quiet, random_events
from tests.in_session import do

pytestmark = pytest.mark.long

SETTINGS = Settings(trends=TrendSettings(min_change=2, min_z=0.5))
USER = 7_310_045_899_123
SESSION = "a-session-of-theirs"
ONLY_THEIRS = 88_001_122
OTHERS = random_events(4, 60)
# The first event of the store and the newest, a product of nobody else, a session shared with others, a bad line.
THEIRS = [
    event(datetime(2019, 9, 20), "view", 3, USER, SESSION),
    event(datetime(2019, 10, 2, 0, 3), "view", 1, USER, "s"),
    event(datetime(2019, 10, 2, 0, 4), "view", 2, USER, "s"),
    event(datetime(2019, 10, 2, 0, 5), "purchase", ONLY_THEIRS, USER, SESSION),
    event(datetime(2019, 10, 21, 5), "purchase", 5, USER, SESSION),
    event(datetime(2019, 11, 5), "view", 4, USER, SESSION),
]
BAD_OF_THEIRS = event(datetime(2019, 10, 21, 6), "look", 5, USER, SESSION)
BAD_OF_OTHERS = event(datetime(2019, 10, 21, 6), "look", 5, 2, "s")


def a_lake(session, folder, deliveries):
    lake = Lake.open(session, str(folder / "lake"), create=True)
    for name, lines in deliveries.items():
        deliver(lake, folder / "in", name, lines)
        update(lake, SimilaritySettings(), progress=quiet)
    refresh_trends(lake, SETTINGS.trends, progress=quiet)
    refresh_recommendations(lake, RecommendationSettings(), progress=quiet)
    return folder / "lake"


@pytest.fixture(scope="module")
def template(session, tmp_path_factory):
    """A lake that saw the user in both of its deliveries."""
    first, second = [*OTHERS[:40], *THEIRS[1:4], BAD_OF_THEIRS], [*OTHERS[40:], THEIRS[0], *THEIRS[4:], BAD_OF_OTHERS]
    return a_lake(session, tmp_path_factory.mktemp("forgetting"), {"one": first, "two": second})


@pytest.fixture(scope="module")
def never(session, tmp_path_factory):
    """What the tables hold in a lake that never saw the user."""
    folder = a_lake(session, tmp_path_factory.mktemp("never"), {"all": [*OTHERS, BAD_OF_OTHERS]})
    return as_compared(Lake.open(session, str(folder)))


def as_compared(lake):
    """Every table's rows, but for where a row came from, and counts summed up as their meaning is."""
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
    compared["baskets"] = sorted(map(repr, known_items(lake.read(BASKETS)).collect()))
    compared["co_interactions"] = sorted(map(repr, total_counts(lake.read(CO_INTERACTIONS)).collect()))
    return compared


def traces(folder):
    """The files that hold anything of the user, Parquet read as such and everything else as text.

    A product of theirs alone is looked for in the rows: the log keeps the least and the greatest id of products.
    """
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix == ".parquet":
            text = str(pyarrow.parquet.read_table(file, partitioning=None).to_pylist())
            text += str(pyarrow.parquet.read_metadata(file).to_dict())
        else:
            text = file.read_bytes().decode("utf-8", "replace")
        wanted = (
            (USER, SESSION, ONLY_THEIRS)
            if file.suffix == ".parquet" and "_delta_log" not in str(file)
            else (USER, SESSION)
        )
        if any(str(trace) in text for trace in wanted):
            found.append(str(file.relative_to(folder)))
    return found


def checkpoint_logs(lake):
    """Delta's own checkpoint of every table, as it makes one every ten commits."""
    for table in lake.present():
        log = lake.spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(
            lake.spark._jsparkSession, lake.location(table)
        )
        log.checkpoint()


def test_every_table_is_as_if_they_had_never_come_and_no_byte_is_left(small, never, tmp_path):
    folder = tmp_path / "lake"
    checkpoint_logs(small)
    kinds = {name.split("/")[0] for name in traces(folder)}
    assert {"events", "rejected_events", "user_trends", "baskets", "recommendations", "co_interactions"} <= kinds
    (folder / "_logs").mkdir()
    (folder / "_logs" / "names.log").write_text(f"no user {USER} in 12.csv\n")
    (folder / "_logs" / "other.log").write_text(f"no user {str(USER)[:-1]} in 12.csv\n")
    found = look(small, {USER, 999}, refuse=True)
    assert (found.users, found.found) == (2, 1)
    assert (found.rows["events"], found.rows["rejected_events"]) == (6, 1)

    done = forget(small, SETTINGS, {USER, 999}, refuse=True, erase=True, progress=quiet)

    assert as_compared(small) == never
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

    late = [THEIRS[2], BAD_OF_THEIRS, event(datetime(2019, 10, 22), "view", 1, 999, "s"), OTHERS[0]]
    account = deliver(small, tmp_path / "in", "late", [*late, event(datetime(2019, 10, 22), "view", 1, 3, "n")])
    assert (account.lines, account.events, account.repeats, account.rejected) == (5, 1, 1, 3)
    refused = small.read(REJECTED_EVENTS).where(F.array_contains("reasons", "user is refused")).collect()
    assert [row.raw for row in refused] == [None] * 3
    assert traces(folder) == []
    assert deliver(small, tmp_path / "in", "later", late).repeats == 4, "a line that was refused is known again"


def test_several_users_leave_at_once(small):
    users = {USER, 1, 2}
    done = forget(small, SETTINGS, users, refuse=False, erase=False, progress=quiet)
    assert (done.users, done.found) == (3, 3)
    for table in BY_USER:
        rows = small.read(table)
        assert not rows.isEmpty()
        assert rows.where(F.col("user_id").isin(users)).isEmpty()
    assert differing(small) == []


def test_a_dry_look_counts_what_there_is_and_changes_nothing(small, capsys):
    before = small.versions(*small.present())
    do("forget", main, small.spark, "--dry-run", "--user", USER, "--refuse", "--lake", small.path)
    text = capsys.readouterr().out
    assert "This would be removed: 1 users asked for, 1 of them known to this lake" in text
    assert re.search(r"^events +6 rows removed +v\d+ +-$", text, re.MULTILINE)
    assert "new events of these users would be refused" in text
    assert str(USER) not in text
    assert small.versions(*small.present()) == before


def test_it_says_that_trends_before_the_cut_date_still_count_them():
    done = Certificate(1, 1, rows={"events": 2}, before={"events": 3}, cut=date(2019, 10, 8))
    assert any("trends before 2019-10-08 are frozen" in line for line in certificate_lines(done, dry_run=False))


@pytest.mark.parametrize("stop", [3, 4, 5, 6])
def test_what_was_interrupted_is_finished_by_the_next_start(small, never, monkeypatch, stop, tmp_path):
    """Stopped after its first writes, each time one later; the live stream meanwhile goes on."""
    interrupted(small, monkeypatch, {USER}, stop)
    forget(small, SETTINGS, {USER}, refuse=False, erase=False, progress=quiet)
    compared = as_compared(small)
    assert {name for name, rows in compared.items() if rows != never[name]} == set()
    assert small.properties(EVENTS)["forgetting"] == ""


def interrupted(lake, monkeypatch, users, stop):
    with monkeypatch.context() as patched:
        writes_before_the_end(patched, stop)
        with pytest.raises(KeyboardInterrupt):
            forget(lake, SETTINGS, users, refuse=False, erase=False, progress=quiet)


def test_what_was_interrupted_is_not_finished_with_other_users(small, monkeypatch, capsys):
    """They would pass for those, of whom half is still there."""
    interrupted(small, monkeypatch, {USER}, 3)
    for others in ({1}, {USER, 1}):
        with pytest.raises(LakeError, match=r"of other users was interrupted .* with those first"):
            forget(small, SETTINGS, others, refuse=False, erase=False, progress=quiet)
    do("verify", verify, small.spark, "--lake", small.path)
    assert "a `forget` is under way, or was interrupted" in capsys.readouterr().out
    forget(small, SETTINGS, {USER}, refuse=False, erase=False, progress=quiet)
    assert differing(small) == []


@pytest.mark.parametrize("stop", [1, 4])
def test_a_rebuild_in_between_takes_nobody_along(small, never, monkeypatch, stop):
    """The way out where the similarity job lost its checkpoint meanwhile."""
    interrupted(small, monkeypatch, {USER}, stop)
    small.files.delete("_checkpoints/similarity")
    with pytest.raises(CheckpointError, match="similarity --rebuild"):
        forget(small, SETTINGS, {USER}, refuse=False, erase=False, progress=quiet)
    start_over(small, SimilaritySettings(), quiet)
    update(small, SimilaritySettings(), progress=quiet)
    forget(small, SETTINGS, {USER}, refuse=False, erase=False, progress=quiet)
    compared = as_compared(small)
    assert {name for name, rows in compared.items() if rows != never[name]} == set()


def test_without_the_table_of_refused_users_nothing_is_taken_in(small, tmp_path):
    forget(small, SETTINGS, {999}, refuse=True, erase=False, progress=quiet)
    small.files.delete("refused_users")
    with pytest.raises(LakeError, match=r"refused_users is missing.*forget --users-file FILE --refuse"):
        deliver(small, tmp_path / "in", "late", [event(datetime(2019, 10, 22), "view", 1, 999, "s")])
    forget(small, SETTINGS, {999}, refuse=True, erase=False, progress=quiet)
    account = deliver(small, tmp_path / "in", "later", [event(datetime(2019, 10, 22), "view", 1, 999, "s")])
    assert (account.events, account.repeats + account.rejected) == (0, account.lines)


def writes_before_the_end(patched, count):
    left = [count]

    def ending(write):
        def call(*arguments, **named):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return write(*arguments, **named)

        return call

    for name in ("set_properties", "delete_keys", "overwrite", "rewrite_dates", "note"):
        patched.setattr(Lake, name, ending(getattr(Lake, name)))


def test_a_user_the_lake_never_saw_changes_nothing(small):
    before = small.versions(*small.present())
    done = forget(small, SETTINGS, {999}, refuse=False, erase=False, progress=quiet)
    assert (done.found, done.rows) == (0, {})
    assert small.versions(*small.present()) == before


def test_a_list_of_users_is_read_whole_or_not_at_all(tmp_path):
    file = tmp_path / "users.txt"
    file.write_text("user_id\n12\n\n013\n")
    assert asked_for([5], file) == {5, 12, 13}
    file.write_text("12\nme\n")
    with pytest.raises(UsageError, match="no user id in line 2; nothing was forgotten"):
        asked_for([], file)
    with pytest.raises(UsageError, match="name users"):
        asked_for([], None)
