"""Tests of reading logs as their source descriptions say, from the bytes of a file to valid events and reasons."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import functions as F

from lambda_spark.errors import UsageError
from lambda_spark.ingestion.field_mapping import FieldMapping
from lambda_spark.ingestion.file_formats import FileGroup, UnreadableFileError, layout_of, read_group
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.ingestion.validation import validate
from lambda_spark.settings import IngestSettings, Settings, load_settings
from lambda_spark.source_description import SourceDescription
from lambda_spark.storage.tables import CO_INTERACTIONS, EVENTS, INGESTION_LOG, RECOMMENDATIONS, USER_TRENDS
from tests.conftest import PROJECT, TRENDS
from tests.deliveries import HEADER, bring_up_to_date, differing

FIELD = PROJECT.parent / "shared" / "field"
SOURCES = PROJECT / "conf" / "sources"
needs_field = pytest.mark.skipif(not FIELD.exists(), reason="the field samples are not part of the project")
PLAIN = "event_time,event_type,product_id,user_id,brand"


def read(spark, file, **description):
    """Read a file; return its valid events, its reasons with their numbers, and the number of ignored records."""
    described = SourceDescription(**description)
    mapping = FieldMapping(spark, described)
    path = str(file)
    records = read_group(spark, FileGroup(layout_of(spark, path, mapping), [path]), mapping)
    records = records.withColumn("ingested_at", F.lit("2026-11-01").cast("timestamp")).where(~F.col("is_header"))
    ahead = timedelta(minutes=10)
    rows = validate(records, described, mapping.labels, min_event_date=date(2000, 1, 1), max_ahead=ahead).collect()
    reasons: dict[str, int] = {}
    for row in rows:
        for reason in row.reasons:
            plain = re.sub('"[^"]*"', '"…"', reason)
            reasons[plain] = reasons.get(plain, 0) + 1
    events = [row for row in rows if not row.reasons and not row.is_ignored]
    return events, reasons, sum(row.is_ignored for row in rows)


def described(name):
    """Return a ready description as keyword arguments."""
    source = load_settings(None, source_file=SOURCES / f"{name}.toml").source
    return {key: getattr(source, key) for key in source.__dataclass_fields__}


@pytest.fixture
def file(tmp_path):
    def write(name, content, encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def json_event(product, **more):
    return json.dumps(
        {"event_time": "2019-10-01T10:00:00Z", "event_type": "view", "product_id": product, "user_id": 1, **more}
    )


def test_a_german_spreadsheet_is_read_by_its_description(spark, file):
    text = "Zeit;Art;Artikel;Kunde;Preis\n01.10.2019 00:30;gekauft;0815;Müller;1.234,50\n"
    events, reasons, _ = read(
        spark,
        file("export.csv", text, "windows-1252"),
        delimiter=";",
        encoding="windows-1252",
        time_format="dd.MM.yyyy HH:mm",
        time_zone="Europe/Berlin",
        decimal_comma=True,
        ids="text",
        fields={
            "event_time": "Zeit",
            "event_type": "Art",
            "product_id": "Artikel",
            "user_id": "Kunde",
            "price": "Preis",
        },
        event_types={"gekauft": "purchase"},
    )
    [event] = events
    assert not reasons
    assert f"{event.event_time:%Y-%m-%d %H:%M}" == "2019-09-30 22:30"
    assert (event.event_type, event.product_id, event.user_id, str(event.price)) == (
        "purchase",
        "0815",
        "Müller",
        "1234.50",
    )


def test_expressions_over_columns_with_spaces_may_ignore_records(spark, file):
    text = "Invoice No,Stock,When,Who\n1,85123A,2010-12-01 08:26,17850.0\nC2,85123A,2010-12-01 08:26,\n"
    events, reasons, ignored = read(
        spark,
        file("retail.csv", text),
        ids="text",
        fields={
            "event_time": "When",
            "event_type": "case when `Invoice No` like 'C%' then 'ignore' else 'purchase' end",
            "product_id": "stock",
            "user_id": "regexp_replace(Who, '[.]0$', '')",
        },
    )
    assert [(event.event_type, event.product_id, event.user_id) for event in events] == [
        ("purchase", "85123A", "17850")
    ]
    assert (reasons, ignored) == ({}, 1)


def test_the_elements_of_an_array_are_an_event_each(spark, file):
    sessions = [
        {"session": 0, "events": [{"aid": 5, "ts": 1661724000278, "type": "clicks"}, {"aid": 0, "ts": 1, "type": "x"}]},
        {"session": 1, "events": []},
    ]
    events, reasons, _ = read(
        spark,
        file("otto.jsonl", "\n".join(map(json.dumps, sessions))),
        explode="events",
        ids="text",
        time_unit="milliseconds",
        fields={
            "event_time": "events.ts",
            "event_type": "events.type",
            "product_id": "events.aid",
            "user_id": "session",
        },
        event_types={"clicks": "view"},
    )
    assert [(event.product_id, event.user_id) for event in events] == [("5", "0")]
    assert reasons == {
        'events.ts "…" is before 2000 as milliseconds': 1,
        'events.type "…" is unknown: map it in source.event_types, or ignore it': 1,
        "events.ts is missing": 1,
        "events.type is missing": 1,
        "events.aid is missing": 1,
    }


def test_several_json_values_on_a_line_are_read_as_several(spark, file):
    lines = [
        json_event(1, brand="} {") + json_event(2, items=[{"a": 1}, {"a": 2}]) + " trailing words",
        f"[{json_event(3)}, {json_event(4)}]",
        json_event(5) + ",",
        "{no json} " + json_event(6),
    ]
    events, reasons, _ = read(spark, file("several.json", "\n".join(lines)))
    assert sorted(event.product_id for event in events) == [1, 2, 3, 4, 5, 6]
    assert reasons == {"not a JSON object of known form": 1}


def test_records_over_several_lines_are_read_where_the_description_says_so(spark, file):
    pretty = json.dumps([json.loads(json_event(1)), json.loads(json_event(2))], indent=2)
    assert len(read(spark, file("pretty.json", pretty), multiline=True)[0]) == 2
    text = f'{PLAIN}\n2019-10-01,view,1,1,"two\nlines"\n2019-10-01,view,2\n'
    events, reasons, _ = read(spark, file("lines.csv", text), multiline=True)
    assert [event.brand for event in events] == ["two\nlines"]
    assert reasons == {"too few or too many fields, or quotes are not balanced": 1}
    wide = f"{PLAIN}\n2019-10-01,view,1,1,café\n".replace(",", "\t")
    events, _, _ = read(spark, file("unicode.csv", wide, "utf-16"), encoding="utf-16", delimiter="\\t", multiline=True)
    assert [event.brand for event in events] == ["café"]


def test_parquet_of_pandas_is_read_with_nanoseconds_and_ids_as_floats(spark, tmp_path):
    rows = {
        "event_time": pd.to_datetime(["2019-10-01 10:00:00.5"]),
        "event_type": ["view"],
        "product_id": [541312140.0],
    }
    pd.DataFrame({**rows, "user_id": [7], "brand": ["x"]}).to_parquet(tmp_path / "pandas.parquet")
    [event], reasons, _ = read(spark, tmp_path / "pandas.parquet")
    assert (event.product_id, event.user_id, reasons) == (541312140, 7, {})
    assert event.event_time.microsecond == 500_000


def test_folder_names_are_columns(spark, tmp_path):
    folder = tmp_path / "event_type=view" / "brand=a%20b"
    folder.mkdir(parents=True)
    (folder / "part-00000").write_text("event_time,product_id,user_id\n2019-10-01,1,1\n")
    [event], _, _ = read(spark, folder / "part-00000")
    assert (event.event_type, event.brand) == ("view", "a b")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"fields": {"event_time": "Whn"}}, "no column Whn among its 5 columns"),
        ({"fields": {"user_id": "userid"}}, "no column userid .* the nearest is user_id"),
        ({"delimiter": ";"}, "separated by ',': add --set 'source.delimiter=,'"),
        ({"fields": {"event_time": "rand()"}}, "may not depend on the clock, the user or chance"),
        ({"fields": {"event_time": "(select 1)"}}, "may not have a subquery"),
        ({"fields": {"event_time": "a b c"}}, "is no Spark SQL expression"),
        ({"fields": {"product_id": ""}}, "every event needs this field"),
        ({"format": "json", "fields": {"brand": "a", "price": "a.b"}}, "uses both a and a.b"),
    ],
)
def test_a_description_that_does_not_fit_says_why(spark, file, description, message):
    with pytest.raises((UsageError, UnreadableFileError), match=message):
        read(spark, file("plain.csv", f"{PLAIN}\n2019-10-01,view,1,1,x\n"), **description)


def test_a_delta_table_is_read_with_the_rows_that_it_has_and_later_gets(lake, tmp_path):
    schema = "event_time string, event_type string, product_id long, user_id long"
    rows = lake.spark.createDataFrame([("2019-10-01", "view", 1, 1), ("2019-10-01", "view", 2, 2)], schema)
    table = str(tmp_path / "table")
    rows.write.format("delta").save(table)
    lake.spark.sql(f"delete from delta.`{table}` where user_id = 2")
    assert ingest(lake, [table], IngestSettings()).events == 1
    lake.spark.createDataFrame([("2019-10-01", "view", 3, 3)], schema).write.format("delta").mode("append").save(table)
    assert ingest(lake, [table], IngestSettings()).events == 1
    assert sorted(row.product_id for row in lake[EVENTS].read().collect()) == [1, 3]


def test_the_lake_in_its_source_and_another_description_are_refused(lake, tmp_path):
    inbox = tmp_path / "in"
    inbox.mkdir()
    (inbox / "plain.csv").write_text("2019-10-01 00:00:00 UTC,view,11,100,a.b,acme,5.00,1,s1\n")
    with pytest.raises(UsageError, match="lie in one another"):
        ingest(lake, [str(Path(lake.path).parent)], IngestSettings())
    account = ingest(lake, [str(inbox)], IngestSettings())
    assert "source.header=false" in account.unreadable[0].reason
    assert account.needs_attention
    account = ingest(lake, [str(inbox)], IngestSettings(), SourceDescription(header=False))
    assert (account.events, account.unreadable) == (1, ()), "the refused file is tried again"
    hashes = {row.refused: row.source_description for row in lake[INGESTION_LOG].read().collect()}
    assert hashes == {True: SourceDescription().hash, False: SourceDescription(header=False).hash}
    with pytest.raises(UsageError, match=r"source.header: False → True.*--accept-source"):
        ingest(lake, [str(inbox)], IngestSettings())
    (inbox / "more.csv").write_text(f"{HEADER}\n2019-10-01 00:00:01 UTC,view,12,100,a.b,acme,5.00,1,s1\n")
    assert ingest(lake, [str(inbox)], IngestSettings(), accept_source=True).events == 1


def test_guests_count_in_demand_and_pairs_and_have_no_list(lake, tmp_path):
    inbox = tmp_path / "in"
    inbox.mkdir()
    visits = [
        f"2019-10-{day:02} 10:0{item}:00 UTC,purchase,{product},1,a.b,acme,5.00,{user},order-{day}"
        for day, user in enumerate(("", "0", "-1", "7"), 1)
        for item, product in enumerate((501, 502))
    ]
    (inbox / "guests.csv").write_text("\n".join([HEADER, *visits, ""]))
    account = ingest(lake, [str(inbox)], IngestSettings())
    assert (account.events, account.rejected) == (8, 0)
    bring_up_to_date(lake, Settings(trends=TRENDS))
    pairs = lake[CO_INTERACTIONS].read().where("item_a = 501 and item_b = 502").groupBy("relation").sum("baskets")
    assert {row.relation: row[1] for row in pairs.collect()} == {"viewed": 4, "bought": 4}
    assert {row.user_id for row in lake[RECOMMENDATIONS].read().collect()} <= {7}
    assert lake[USER_TRENDS].read().where("user_id is null").isEmpty()
    assert differing(lake) == []


COUNTS = {
    "several-on-a-line.json": ({}, 6, {}, 0),
    "online-retail.csv": ("online-retail", 191, {}, 9),
    "text-ids.jsonl": ({"ids": "text"}, 4, {}, 0),
    "leading-zeros.csv": ({"ids": "text"}, 7, {}, 0),
    "retailrocket.csv": ("retailrocket", 9, {}, 0),
    "guests.csv": ({}, 60, {}, 0),
    "quotes.csv": ({}, 6, {}, 0),
    "optional-fields.csv": ({}, 4, {}, 0),
    "excel-german.csv": ({"delimiter": ";", "decimal_comma": True, "time_format": "dd.MM.yyyy HH:mm"}, 20, {}, 0),
    "no-header.csv": ({"header": False}, 30, {}, 0),
    "folders/event_type=view/event_date=2019-10-01/part-00000-1f4c.c000.csv": ({}, 3, {}, 0),
}


@needs_field
@pytest.mark.parametrize("name", COUNTS)
def test_a_field_sample_has_the_expected_events_and_rejections(spark, name):
    description, count, expected, expected_ignored = COUNTS[name]
    if isinstance(description, str):
        description = described(description)
    events, reasons, ignored = read(spark, FIELD / name, **description)
    assert (len(events), reasons, ignored) == (count, expected, expected_ignored)
    if name == "leading-zeros.csv":
        assert {event.product_id for event in events} == {
            "0108775015", "0108775044", "108775015", "0012345678905", "12345678905", "+42"
        }  # fmt: skip
        _, reasons, _ = read(spark, FIELD / name)
        assert sum(reasons.values()) == 5
    if name == "text-ids.jsonl":
        raw = [json.loads(line) for line in (FIELD / name).read_text().splitlines()]
        assert [event.product_id for event in events] == [str(record["product_id"]) for record in raw]
        assert [event.user_id for event in events] == [str(record["user_id"]) for record in raw]


@needs_field
def test_taobao_rejects_only_the_wrong_clocks(spark):
    events, reasons, ignored = read(spark, FIELD / "taobao.csv", **described("taobao"))
    assert len(events) + ignored + sum(reasons.values()) == 243
    assert sum(reasons.values()) == 2
    assert any("in the future" in reason for reason in reasons)
    assert any("before 2000" in reason for reason in reasons)


SAMPLES = sorted(path for path in (SOURCES / "samples").iterdir() if path.name[0] != ".")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_ready_description_reads_its_sample(spark, sample):
    events, reasons, ignored = read(spark, sample, **described(sample.name.split(".")[0]))
    rejected = sum(reasons.values())
    assert len(events) > 5
    assert rejected <= 0.2 * (len(events) + ignored + rejected), reasons
