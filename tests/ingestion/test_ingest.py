"""Tests of ingesting files into a real lake: every line becomes an event, a repeat or a rejection."""

import gzip
import json
import logging
import os
from datetime import date
from pathlib import Path

import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from lambda_spark.errors import LambdaSparkError, UsageError
from lambda_spark.ingestion.deduplication import distinct_new, twice_seen
from lambda_spark.ingestion.field_mapping import FieldMapping
from lambda_spark.ingestion.file_source import is_excluded
from lambda_spark.ingestion.ingest import create_tables, ingest, renew_products
from lambda_spark.ingestion.kafka_source import KafkaSource
from lambda_spark.ingestion.micro_batch import Account
from lambda_spark.ingestion.refused_users import FORGETTING
from lambda_spark.settings import IngestSettings, KafkaSettings
from lambda_spark.source_description import REES46, SourceDescription
from lambda_spark.storage.table_handle import TableHandle
from lambda_spark.storage.tables import EVENTS, INGESTION_LOG, PRODUCTS, REJECTED_EVENTS
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


def take(lake, *sources, settings=SETTINGS, **options):
    return ingest(lake, [str(source) for source in sources], settings, **options)


def counts(account):
    return account.lines, account.events, account.repeats, account.rejected


def reasons(lake):
    return {row.raw: row.reasons for row in lake[REJECTED_EVENTS].read().collect()}


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
    rejected = {tuple(row.reasons) for row in lake[REJECTED_EVENTS].read().collect()}
    assert rejected == {
        ("not a JSON object of known form",),
        ("event_time is missing", "product_id is missing", "user_id is missing, and there is no session"),
        ("too few fields",),
        ("too many fields",),
        ("quotes are not balanced",),
        ("empty line",),
        ('event_type "like" is unknown: map it in source.event_types, or ignore it',),
        ("NUL character in the line",),
        ("line longer than 16384 characters",),
        ("not valid UTF-8",),
    }
    latin = lake[REJECTED_EVENTS].read().where("raw_bytes is not null").collect()
    assert [bytes(row.raw_bytes) for row in latin] == [ONE.replace("acme", "caf\u00e9").encode("latin-1")]
    brands = {row.brand for row in lake[EVENTS].read().collect()}
    assert brands == {"acme", "bolt", None, 'a "quoted", one', "z", "caf\u00e9"}
    files = {
        row.source.rsplit("/", 1)[-1]: (row.lines, row.events + row.repeats + row.rejected)
        for row in lake[INGESTION_LOG].read().collect()
    }
    assert files["a%20b,%7B1%7D.csv"] == (3, 3)
    assert all(lines == total for lines, total in files.values())


def test_a_new_event_is_kept_once_and_a_known_event_is_dropped(spark):
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
    ids = [row.event_id for row in lake[EVENTS].read().collect()]
    assert len(ids) == len(set(ids)) == 3


def test_a_second_run_reads_nothing_and_a_second_delivery_adds_nothing(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\nbroken\n")
    assert counts(take(lake, inbox)) == (3, 2, 0, 1)
    versions = lake.versions(EVENTS, REJECTED_EVENTS, PRODUCTS, INGESTION_LOG)
    assert take(lake, inbox) == Account()
    assert lake.versions(EVENTS, REJECTED_EVENTS, PRODUCTS, INGESTION_LOG) == versions
    (inbox / "again.csv").write_text(f"{HEADER}\n{THREE}\nbroken\n{TWO}\n{ONE}\n")
    assert counts(take(lake, inbox)) == (4, 1, 3, 0)
    assert lake[EVENTS].read().count() == 3
    assert lake[REJECTED_EVENTS].read().count() == 1
    (inbox / "repeats.csv").write_text(f"{HEADER}\n{ONE}\nbroken\n")
    assert counts(take(lake, inbox)) == (2, 0, 2, 0)
    assert take(lake, inbox) == Account(), "a file that holds only repeats also counts as read"
    assert lake[INGESTION_LOG].read().count() == 3


def test_products_are_renewed_from_new_events_only_if_the_log_of_events_still_has_them(lake, inbox, monkeypatch):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n")
    take(lake, inbox)
    before = lake[EVENTS].version()
    (inbox / "two.csv").write_text(f"{HEADER}\n{TWO}\n")
    take(lake, inbox)

    def renewed():
        # Empty the table `products` first, so that its new rows show which events the job has read.
        note = {"events_version": before, **lake.newest(before).to_note()}
        lake[PRODUCTS].overwrite(lake[PRODUCTS].read().limit(0), note=note)
        renew_products(lake)
        return sorted(row.product_id for row in lake[PRODUCTS].read().collect())

    assert renewed() == [12]
    monkeypatch.setattr(TableHandle, "has_log_since", lambda *_: False)
    assert renewed() == [11, 12]


def test_products_are_rebuilt_from_all_events_after_events_were_deleted(lake, inbox):
    """In this test the table `products` is rebuilt after a micro-batch has been replayed."""
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\n")
    take(lake, inbox)
    application = lake[EVENTS].properties()["application"]
    lake.files.delete(f"_checkpoints/ingest/{application}/commits")
    lake[EVENTS].delete(F.col("product_id") == 12, note={})
    assert counts(take(lake, inbox)) == (2, 1, 1, 0)
    assert [row.product_id for row in lake[PRODUCTS].read().collect()] == [11]


def test_unreadable_files_are_named_and_all_other_files_are_ingested(lake, inbox):
    whole = gzip.compress(f"{HEADER}\n{ONE}\n".encode() * 5_000)
    (inbox / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (inbox / "empty.csv").write_text("")
    (inbox / "header-only.csv").write_text(HEADER + "\n")
    (inbox / "no-user.csv").write_text("event_time,event_type,product_id\n2019-10-01,view,1\n")
    (inbox / "twice.csv").write_text(f"{HEADER},user_id\n")
    (inbox / "false.parquet").write_text("this is no Parquet")
    (inbox / "notes.docx").write_text("hello")
    (inbox / "utf16.csv").write_text(f"{HEADER}\n{ONE}\n", encoding="utf-16")
    (inbox / "headers.csv").write_text(f"{HEADER}\n{TWO}\n{HEADER}\n{THREE}\n")
    account = take(lake, inbox)
    assert (account.events, account.repeats) == (2, 0)
    named = {file.path.rsplit("/", 1)[-1]: file.reason for file in account.unreadable}
    assert set(named) == {
        "cut.csv.gz",
        "empty.csv",
        "no-user.csv",
        "twice.csv",
        "false.parquet",
        "notes.docx",
        "utf16.csv",
    }
    assert named["empty.csv"] == "the file is empty"
    assert "EOFException" in named["cut.csv.gz"]
    assert "no column user_id" in named["no-user.csv"]
    assert "column user_id appears more than once" in named["twice.csv"]
    assert "is not a Parquet file" in named["false.parquet"]
    assert "unknown kind of file" in named["notes.docx"]
    assert account.rejected == 7 + 1, (
        "one for each unreadable file, and one for the header line in the middle of a file"
    )
    assert account.lines == account.events + account.repeats + account.rejected
    (inbox / "empty.csv").write_text(f"{HEADER}\n{ONE}\n")
    assert take(lake, inbox).rewritten == (str(inbox / "empty.csv"),), (
        "Spark has seen this file and reads no name twice"
    )


def test_a_file_is_not_rejected_because_a_disk_is_full(lake, inbox, monkeypatch):
    (inbox / "good.csv").write_text(f"{HEADER}\n{ONE}\n")

    def fails(spark, group, mapping):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("lambda_spark.ingestion.file_source.read_group", fails)
        with pytest.raises(
            LambdaSparkError, match=r"good.csv cannot be read now: No space left .* was not rejected: start again"
        ):
            take(lake, inbox)
    assert counts(take(lake, inbox)) == (1, 1, 0, 0)
    assert lake[REJECTED_EVENTS].read().isEmpty()


def test_a_file_without_a_header_is_read_in_the_column_order_of_rees46(lake, inbox):
    (inbox / "plain.csv").write_text(f"{ONE}\n{TWO}\n")
    account = take(lake, inbox, description=SourceDescription(header=False))
    assert counts(account) == (2, 2, 0, 0)


def test_a_file_without_a_header_is_rejected_by_default(lake, inbox):
    (inbox / "plain.csv").write_text(f"{ONE}\n{TWO}\n")
    account = take(lake, inbox)
    assert account.events == 0
    assert "source.header=false" in account.unreadable[0].reason


def test_a_file_that_changed_after_it_was_read_is_named(lake, inbox):
    file = inbox / "growing.csv"
    file.write_text(f"{HEADER}\n{ONE}\n")
    take(lake, inbox)
    file.write_text(f"{HEADER}\n{ONE}\n{TWO}\n")
    os.utime(file, (2_000_000_000, 2_000_000_000))
    account = take(lake, inbox)
    assert account.events == 0
    assert account.rewritten == (str(file),)


def test_a_file_with_a_future_modification_time_hides_no_other_file(lake, inbox):
    future = inbox / "future.csv"
    future.write_text(f"{HEADER}\n{ONE}\n")
    os.utime(future, (4_000_000_000, 4_000_000_000))
    take(lake, inbox)
    (inbox / "now.csv").write_text(f"{HEADER}\n{TWO}\n")
    assert take(lake, inbox).events == 1


def test_several_sources_are_read_as_one_stream(lake, inbox, tmp_path):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n")
    single = tmp_path / "single, {2}.csv"
    single.write_text(f"{HEADER}\n{TWO}\n")
    assert counts(take(lake, inbox, single)) == (2, 2, 0, 0)
    assert counts(take(lake, single)) == (0, 0, 0, 0)


def test_a_missing_source_is_a_usage_error(lake, tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        take(lake, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no source"):
        take(lake)


def test_each_event_is_in_the_partition_of_its_date(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{THREE}\n")
    take(lake, inbox)
    dates = lake[EVENTS].read().groupBy("event_date").agg(F.max(F.to_date("event_time")).alias("of_time")).collect()
    assert {(row.event_date, row.of_time) for row in dates} == {(date(2019, 10, day),) * 2 for day in (1, 2)}


def test_a_file_that_holds_only_repeats_does_not_change_products(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\n")
    take(lake, inbox)
    version = lake[PRODUCTS].version()
    (inbox / "two.csv").write_text(f"{HEADER}\n{TWO}\n{ONE}\n")
    assert counts(take(lake, inbox)) == (2, 0, 2, 0)
    assert lake[PRODUCTS].version() == version


def test_a_file_that_arrives_during_a_run_is_read_by_the_next_run_and_not_called_rewritten(lake, inbox, caplog):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n")

    class Arrives(logging.Handler):
        def emit(self, record):
            (inbox / "two.csv").write_text(f"{HEADER}\n{TWO}\n")

    handler = Arrives()
    caplog.set_level(logging.INFO, logger="lambda_spark")
    logging.getLogger("lambda_spark.ingestion").addHandler(handler)
    account = ingest(lake, [str(inbox)], IngestSettings())
    logging.getLogger("lambda_spark.ingestion").removeHandler(handler)
    assert (account.events, account.rewritten) == (1, ())
    assert counts(take(lake, inbox)) == (1, 1, 0, 0)


def test_products_keep_the_newest_attributes_that_are_not_null_in_any_order(lake, inbox):
    (inbox / "late.csv").write_text(f"{HEADER}\n{THREE}\n")
    take(lake, inbox)
    (inbox / "early.csv").write_text(f"{HEADER}\n{ONE}\n2019-09-30 00:00:00 UTC,view,11,,old.code,old,1.00,1,s\n")
    take(lake, inbox)
    row = lake[PRODUCTS].read().collect()[0]
    assert (row.category_code, row.brand, str(row.price)) == ("a.b", "acme", "7.00")
    assert (row.first_seen.date(), row.last_seen.date()) == (date(2019, 9, 30), date(2019, 10, 2))


def test_after_a_lost_checkpoint_all_files_are_read_again_and_no_event_is_stored_twice(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n{TWO}\n")
    take(lake, inbox)
    lake.files.delete("_checkpoints/ingest")
    assert counts(take(lake, inbox)) == (2, 0, 2, 0)
    assert lake[EVENTS].read().count() == 2


def test_a_checkpoint_with_a_finished_micro_batch_that_was_never_planned_is_not_used(lake, inbox):
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\n")
    create_tables(lake)
    finished = Path(lake.path, "_checkpoints", "ingest", lake[EVENTS].properties()["application"], "commits")
    finished.mkdir(parents=True)
    (finished / "0").write_text("v1\n{}")
    assert counts(take(lake, inbox)) == (1, 1, 0, 0)


def test_every_source_is_read_from_the_start_after_rejected_events_is_lost(lake, inbox, caplog):
    """The first job creates the lost table again. Jobs on other sources could then not notice their missing lines."""
    (inbox / "one.csv").write_text(f"{HEADER}\n{ONE}\nno event\n")
    take(lake, inbox)
    settings = KafkaSettings(bootstrap_servers="nowhere:9092", topic="my.clicks")
    topic = KafkaSource(lake.spark, settings, FieldMapping(lake.spark, REES46))
    lake[EVENTS].set_properties({topic.application_key: "before", topic.id_key: "same", FORGETTING: ""})
    lake.files.delete("rejected_events")
    caplog.clear()
    caplog.set_level(logging.INFO, logger="lambda_spark")
    account = ingest(lake, [str(inbox)], IngestSettings())
    assert counts(account) == (2, 0, 1, 1)
    assert lake[EVENTS].properties()[topic.application_key] != "before"
    assert lake[EVENTS].properties()[topic.id_key] == "same"
    assert "rejected_events is missing, so all input is read again" in caplog.messages[0]
    assert "each by the next job that reads it" in caplog.messages[0]
    assert "forgotten without --refuse come back" in caplog.messages[1]


@pytest.mark.parametrize(
    ("path", "pattern", "excluded"),
    [
        ("file:/data/in/bad-1.csv", "bad*.csv", True),
        ("file:/data/in/bad-1.csv", "/data/in/*", True),
        ("file:/data/in/bad-1.csv", "bad-1", False),
        ("s3a://store/in/bad 1.csv", "bad ?.csv", True),
    ],
)
def test_files_are_excluded_by_name_or_by_path(path, pattern, excluded):
    assert is_excluded(path, [pattern]) is excluded
