"""Files into a real lake: every line is an event, a repeat or a rejection, whatever the file."""

import gzip
import json
import os
from datetime import date
from pathlib import Path

import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from lambda_spark.errors import LambdaSparkError, UsageError
from lambda_spark.ingestion.deduplication import distinct_new, twice_seen
from lambda_spark.ingestion.file_source import is_excluded
from lambda_spark.ingestion.ingest import create_tables, ingest, renew_products
from lambda_spark.ingestion.kafka_source import KafkaSource
from lambda_spark.ingestion.micro_batch import Account
from lambda_spark.ingestion.refused_users import FORGETTING
from lambda_spark.settings import IngestSettings, KafkaSettings
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, INGESTED_FILES, PRODUCTS, REJECTED_EVENTS
from tests.deliveries import HEADER

ONE = "2019-10-01 00:00:00 UTC,view,11,100,a.b,acme,5.00,1,s1"
TWO = "2019-10-01 00:01:00 UTC,cart,12,100,a.b,bolt,6.00,1,s1"
THREE = "2019-10-02 00:00:00 UTC,purchase,11,,,,7.00,2,s2"
SETTINGS = IngestSettings()


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def take(lake, *sources, settings=SETTINGS):
    return ingest(lake, [str(source) for source in sources], settings, progress=lambda _: None)


def counts(account):
    return account.lines, account.events, account.repeats, account.rejected


def reasons(lake):
    return {row.raw: row.reasons for row in lake.read(REJECTED_EVENTS).collect()}


def test_every_line_of_every_kind_of_file_is_accounted_for(lake, inbox):
    (inbox / "a b,{1}.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\n{ONE}\n")
    shuffled = "user_id;product_id,event_type,event_time,price,extra".replace(";", ",")
    with gzip.open(inbox / "columns.csv.gz", "wt") as file:
        file.write(f'"{shuffled.replace(",", chr(34) + "," + chr(34))}"\n2,11,purchase,2019-10-02T00:00:00Z,"7.00",x\n')
    event = {"event_time": 1570060800, "event_type": "view", "product_id": 13, "user_id": 3, "brand": 'a "quoted", one'}
    (inbox / "lines.jsonl").write_text(json.dumps(event) + "\n" + "{not json\n" + '{"event_type": "view"}\n')
    lake.spark.sql(
        "select timestamp '2019-10-04 00:00:00' event_time, 'view' event_type, 14L product_id, 9L user_id, "
        "1.5D price, 'z' brand"
    ).coalesce(1).write.parquet(str(inbox / "table.parquet"))
    (inbox / "bad.csv").write_bytes(
        "\n".join(
            [
                HEADER,
                ONE[:40],
                ONE + ",more",
                ONE.replace("acme", '"acme'),
                "",
                ONE.replace("view", "like"),
                ONE.replace("acme", "ac\0me"),
                ONE.replace("acme", "x" * 20_000),
                ONE.replace("acme", "caf\u00e9"),
            ]
        ).encode("utf-8")
        + b"\n"
        + ONE.replace("acme", "caf\u00e9").encode("latin-1")
        + b"\n"
    )
    account = take(lake, inbox)
    assert counts(account) == (3 + 1 + 3 + 1 + 9, 2 + 1 + 1 + 1 + 1, 1, 2 + 8)
    rejected = {tuple(row.reasons) for row in lake.read(REJECTED_EVENTS).collect()}
    assert rejected == {
        ("not a JSON object of known form",),
        ("event_time is missing", "product_id is missing", "user_id is missing"),
        ("too few fields",),
        ("too many fields",),
        ("quotes are not balanced",),
        ("empty line",),
        ("event_type is unknown",),
        ("NUL character in the line",),
        ("line longer than 16384 characters",),
        ("not valid UTF-8",),
    }
    latin = lake.read(REJECTED_EVENTS).where("raw_bytes is not null").collect()
    assert [bytes(row.raw_bytes) for row in latin] == [ONE.replace("acme", "caf\u00e9").encode("latin-1")]
    brands = {row.brand for row in lake.read(EVENTS).collect()}
    assert brands == {"acme", "bolt", None, 'a "quoted", one', "z", "caf\u00e9"}
    files = {
        row.source.rsplit("/", 1)[-1]: (row.lines, row.events + row.repeats + row.rejected)
        for row in lake.read(INGESTED_FILES).collect()
    }
    assert files["a%20b,%7B1%7D.csv"] == (3, 3)
    assert all(lines == total for lines, total in files.values())


def test_an_event_is_new_once_and_never_where_it_is_known(spark):
    day, schema = date(2019, 10, 1), "event_id string, event_date date"
    valid = spark.createDataFrame([("a", day), ("b", day), ("b", day), ("c", day)], schema)
    known = spark.createDataFrame([("a",), ("x",)], "event_id string")
    twice = twice_seen(valid, known)
    assert twice.count() == 2
    assert_df_equality(
        distinct_new(valid, known, twice),
        spark.createDataFrame([("b", day), ("c", day)], schema),
        ignore_row_order=True,
    )


@pytest.mark.parametrize(
    "limits",
    [
        {"_FEW_LINES": 0},
        {"_FEW_LINES": 0, "_FEW_REPEATS": 0},
        {"_FEW_LINES": 1},
        {"_FEW_LINES": 1, "_SOME_DATES": 0},
    ],
    ids=["many on every date", "many repeats", "few on the older date", "many dates"],
)
def test_a_large_delivery_is_accounted_for_like_a_small_one(lake, inbox, monkeypatch, limits):
    for name, limit in limits.items():
        monkeypatch.setattr(f"lambda_spark.ingestion.micro_batch.{name}", limit)
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\n{ONE}\n{ONE[:40]}\n")
    assert counts(take(lake, inbox)) == (4, 2, 1, 1)
    (inbox / "two.csv").write_text(f"{HEADER}\n{TWO}\n{THREE}\n{THREE}\n")
    assert counts(take(lake, inbox)) == (3, 1, 2, 0)
    ids = [row.event_id for row in lake.read(EVENTS).collect()]
    assert len(ids) == len(set(ids)) == 3


def test_a_second_run_reads_nothing_and_a_second_delivery_adds_nothing(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\nbroken\n")
    assert counts(take(lake, inbox)) == (3, 2, 0, 1)
    versions = lake.versions(EVENTS, REJECTED_EVENTS, PRODUCTS, INGESTED_FILES)
    assert take(lake, inbox) == Account()
    assert lake.versions(EVENTS, REJECTED_EVENTS, PRODUCTS, INGESTED_FILES) == versions
    (inbox / "again.csv").write_text(f"{HEADER}\n{THREE}\nbroken\n{TWO}\n{ONE}\n")
    assert counts(take(lake, inbox)) == (4, 1, 3, 0)
    assert lake.read(EVENTS).count() == 3
    assert lake.read(REJECTED_EVENTS).count() == 1
    (inbox / "repeats.csv").write_text(f"{HEADER}\n{ONE}\nbroken\n")
    assert counts(take(lake, inbox)) == (2, 0, 2, 0)
    assert take(lake, inbox) == Account(), "a delivery that brought nothing new was read as well"
    assert lake.read(INGESTED_FILES).count() == 3


def test_products_are_renewed_from_what_came_since_where_the_log_tells_it(lake, inbox, monkeypatch):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n")
    take(lake, inbox)
    before = lake.version(EVENTS)
    (inbox / "two.csv").write_text(f"{HEADER}\n{TWO}\n")
    take(lake, inbox)

    def renewed():
        # Without rows it shows which events they are made from.
        lake.overwrite(PRODUCTS, lake.read(PRODUCTS).limit(0), note={"events_version": before})
        renew_products(lake)
        return sorted(row.product_id for row in lake.read(PRODUCTS).collect())

    assert renewed() == [12]
    monkeypatch.setattr(Lake, "has_log_since", lambda *_: False)
    assert renewed() == [11, 12]


def test_products_are_made_anew_from_all_where_something_was_taken_out(lake, inbox):
    """Also by a micro-batch that is run again, after a user left."""
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\n")
    take(lake, inbox)
    application = lake.properties(EVENTS)["application"]
    lake.files.delete(f"_checkpoints/ingest/{application}/commits")
    lake.delete(EVENTS, F.col("product_id") == 12, note={})
    assert counts(take(lake, inbox)) == (2, 1, 1, 0)
    assert [row.product_id for row in lake.read(PRODUCTS).collect()] == [11]


def test_files_that_cannot_be_read_are_named_and_the_rest_goes_on(lake, inbox):
    whole = gzip.compress(f"{HEADER}\n{ONE}\n".encode() * 5_000)
    (inbox / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (inbox / "empty.csv").write_text("")
    (inbox / "header-only.csv").write_text(HEADER + "\n")
    (inbox / "no-user.csv").write_text("event_time,event_type,product_id\n2019-10-01,view,1\n")
    (inbox / "twice.csv").write_text(f"{HEADER},user_id\n")
    (inbox / "false.parquet").write_text("this is no Parquet")
    (inbox / "notes.txt").write_text("hello")
    (inbox / "utf16.csv").write_text(f"{HEADER}\n{ONE}\n", encoding="utf-16")
    (inbox / "headers.csv").write_text(f"{HEADER}\n{TWO}\n{HEADER}\n{THREE}\n")
    account = take(lake, inbox)
    assert (account.events, account.repeats) == (2, 0)
    named = {line.split(": ")[0].rsplit("/", 1)[-1]: line.split(": ", 1)[1] for line in account.unreadable}
    assert set(named) == {
        "cut.csv.gz",
        "empty.csv",
        "no-user.csv",
        "twice.csv",
        "false.parquet",
        "notes.txt",
        "utf16.csv",
    }
    assert named["empty.csv"] == "the file is empty"
    assert "EOFException" in named["cut.csv.gz"]
    assert "no column user_id" in named["no-user.csv"]
    assert "stands twice" in named["twice.csv"]
    assert "is not a Parquet file" in named["false.parquet"]
    assert "unknown kind of file" in named["notes.txt"]
    assert account.rejected == 7 + 1, "a file each, and the header line that stands in the middle of one"
    assert account.lines == account.events + account.repeats + account.rejected
    (inbox / "empty.csv").write_text(f"{HEADER}\n{ONE}\n")
    assert take(lake, inbox).rewritten == (str(inbox / "empty.csv"),), "Spark has seen it, and reads no name twice"


def test_a_file_is_not_to_blame_for_a_disk_or_a_network(lake, inbox, monkeypatch):
    (inbox / "good.csv").write_text(f"{HEADER}\n{ONE}\n")

    def fails(spark, group):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("lambda_spark.ingestion.file_source.read_group", fails)
        with pytest.raises(LambdaSparkError, match=r"good.csv cannot be read now: No space left .* start again"):
            take(lake, inbox)
    assert counts(take(lake, inbox)) == (1, 1, 0, 0)
    assert lake.read(REJECTED_EVENTS).isEmpty()


def test_a_file_without_a_header_is_read_in_the_order_of_rees46(lake, inbox):
    (inbox / "plain.csv").write_text(f"{ONE}\n{TWO}\n")
    account = take(lake, inbox, settings=IngestSettings(header=False))
    assert counts(account) == (2, 2, 0, 0)


def test_without_being_told_a_file_without_a_header_is_refused(lake, inbox):
    (inbox / "plain.csv").write_text(f"{ONE}\n{TWO}\n")
    account = take(lake, inbox)
    assert account.events == 0
    assert "ingest.header=false" in account.unreadable[0]


def test_a_file_that_changed_after_it_was_read_is_named(lake, inbox):
    file = inbox / "growing.csv"
    file.write_text(f"{HEADER}\n{ONE}\n")
    take(lake, inbox)
    file.write_text(f"{HEADER}\n{ONE}\n{TWO}\n")
    os.utime(file, (2_000_000_000, 2_000_000_000))
    account = take(lake, inbox)
    assert account.events == 0
    assert account.rewritten == (str(file),)


def test_a_file_from_the_future_hides_no_other(lake, inbox):
    future = inbox / "future.csv"
    future.write_text(f"{HEADER}\n{ONE}\n")
    os.utime(future, (4_000_000_000, 4_000_000_000))
    take(lake, inbox)
    (inbox / "now.csv").write_text(f"{HEADER}\n{TWO}\n")
    assert take(lake, inbox).events == 1


def test_several_sources_are_one_stream(lake, inbox, tmp_path):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n")
    single = tmp_path / "single, {2}.csv"
    single.write_text(f"{HEADER}\n{TWO}\n")
    assert counts(take(lake, inbox, single)) == (2, 2, 0, 0)
    assert counts(take(lake, single)) == (0, 0, 0, 0)


def test_a_source_that_is_not_there_is_refused(lake, tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        take(lake, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no source"):
        take(lake)


def test_an_event_of_another_date_is_in_its_own_partition(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{THREE}\n")
    take(lake, inbox)
    dates = lake.read(EVENTS).groupBy("event_date").agg(F.max(F.to_date("event_time")).alias("of_time")).collect()
    assert {(row.event_date, row.of_time) for row in dates} == {(date(2019, 10, day),) * 2 for day in (1, 2)}


def test_a_delivery_of_repeats_alone_leaves_products_as_they_are(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\n")
    take(lake, inbox)
    version = lake.version(PRODUCTS)
    (inbox / "two.csv").write_text(f"{HEADER}\n{TWO}\n{ONE}\n")
    assert counts(take(lake, inbox)) == (2, 0, 2, 0)
    assert lake.version(PRODUCTS) == version


def test_a_file_that_arrives_during_a_run_is_not_called_changed_and_read_by_the_next(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n")

    def arrives(_):
        (inbox / "two.csv").write_text(f"{HEADER}\n{TWO}\n")

    account = ingest(lake, [str(inbox)], IngestSettings(), progress=arrives)
    assert (account.events, account.rewritten) == (1, ())
    assert counts(take(lake, inbox)) == (1, 1, 0, 0)


def test_products_keep_the_newest_attributes_that_are_not_null_in_any_order(lake, inbox):
    (inbox / "late.csv").write_text(f"{HEADER}\n{THREE}\n")
    take(lake, inbox)
    (inbox / "early.csv").write_text(f"{HEADER}\n{ONE}\n2019-09-30 00:00:00 UTC,view,11,,old.code,old,1.00,1,s\n")
    take(lake, inbox)
    row = lake.read(PRODUCTS).collect()[0]
    assert (row.category_code, row.brand, str(row.price)) == ("a.b", "acme", "7.00")
    assert (row.first_seen.date(), row.last_seen.date()) == (date(2019, 9, 30), date(2019, 10, 2))


def test_a_lost_checkpoint_reads_all_again_and_counts_nothing_twice(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\n")
    take(lake, inbox)
    lake.files.delete("_checkpoints/ingest")
    assert counts(take(lake, inbox)) == (2, 0, 2, 0)
    assert lake.read(EVENTS).count() == 2


def test_a_checkpoint_that_has_finished_what_it_never_planned_is_not_gone_on_with(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n")
    create_tables(lake)
    finished = Path(lake.path, "_checkpoints", "ingest", lake.properties(EVENTS)["application"], "commits")
    finished.mkdir(parents=True)
    (finished / "0").write_text("v1\n{}")
    assert counts(take(lake, inbox)) == (1, 1, 0, 0)


def test_where_rejections_are_lost_every_source_begins_anew(lake, inbox, capsys):
    """Of whichever job reads first: it makes the table again, and nobody would miss the others' any more."""
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\nno event\n")
    take(lake, inbox)
    topic = KafkaSource(lake.spark, KafkaSettings(bootstrap_servers="nowhere:9092", topic="my.clicks"))
    lake.set_properties(EVENTS, {topic.application_key: "before", topic.id_key: "same", FORGETTING: ""})
    lake.files.delete("rejected_events")
    said = []
    account = ingest(lake, [str(inbox)], IngestSettings(), progress=said.append)
    assert counts(account) == (2, 0, 1, 1)
    assert lake.properties(EVENTS)[topic.application_key] != "before"
    assert lake.properties(EVENTS)[topic.id_key] == "same"
    assert "rejected_events is missing; all is read again" in said[0]
    assert "each by the next job that reads it" in said[0]
    assert "forgotten without --refuse come back" in said[1]


@pytest.mark.parametrize(
    ("path", "pattern", "excluded"),
    [
        ("file:/data/in/bad-1.csv", "bad*.csv", True),
        ("file:/data/in/bad-1.csv", "/data/in/*", True),
        ("file:/data/in/bad-1.csv", "bad-1", False),
        ("s3a://store/in/bad 1.csv", "bad ?.csv", True),
    ],
)
def test_files_are_left_out_by_name_or_by_path(path, pattern, excluded):
    assert is_excluded(path, [pattern]) is excluded
