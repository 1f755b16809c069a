"""Tests of how a sample is read: formats, delimiters, encodings, headers, and several values on a line."""

import bz2
import gzip
import json
from collections import Counter

import pandas as pd
import pytest
from deltalake import write_deltalake

from lambda_spark.errors import UsageError
from lambda_spark.inspection.sample import Number, json_values, read_sample

TABLE = "event_time,event_type,product_id,user_id\n2019-10-01 10:00:00 UTC,view,7,1\n2019-10-01 10:01:00 UTC,cart,8,2\n"
ROWS = [
    {"event_time": "2019-10-01 10:00:00 UTC", "event_type": "view", "product_id": "7", "user_id": "1"},
    {"event_time": "2019-10-01 10:01:00 UTC", "event_type": "cart", "product_id": "8", "user_id": "2"},
]


def sample_of(folder, name, content):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_sample([file])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_usual_delimiter_is_found(tmp_path, delimiter):
    sample = sample_of(tmp_path, "log.txt", TABLE.replace(",", delimiter))
    assert (sample.dialect.delimiter, sample.dialect.header, sample.rows()) == (delimiter, True, ROWS)


def test_a_few_broken_lines_do_not_hide_the_delimiter_and_are_counted(tmp_path):
    sample = sample_of(tmp_path, "log.csv", TABLE.replace(",", ";") + "1;2\n1;2;3;4;5\n")
    assert (sample.dialect.delimiter, sample.rows()) == (";", ROWS)
    assert sample.unreadable == {"too few fields": 1, "too many fields": 1}


def test_quotes_are_doubled_or_escaped_by_a_backslash(tmp_path):
    doubled = 'product_id,brand\n1,"Levi\'s ""501"""\n2,"a,b"\n'
    assert sample_of(tmp_path, "doubled.csv", doubled).rows()[0]["brand"] == 'Levi\'s "501"'
    sample = sample_of(tmp_path, "escaped.csv", 'product_id,brand\n1,"Levi\'s \\"501\\""\n2,"a,b"\n')
    assert (sample.dialect.escape, sample.rows()[0]["brand"]) == ("\\", 'Levi\'s "501"')


def test_a_quoted_line_break_makes_the_log_multiline(tmp_path):
    sample = sample_of(tmp_path, "log.csv", 'product_id,brand\n1,"two\nlines"\n2,"one"\n')
    assert (sample.dialect.multiline, len(sample.rows())) == (True, 2)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("product_id,brand\n1,Müller\n".encode("utf-8-sig"), "utf-8"),
        ("product_id,brand\n1,Müller\n".encode("cp1252"), "windows-1252"),
        ("product_id,brand\n1,Müller\n".encode("utf-16"), "utf-16"),
    ],
)
def test_the_encoding_is_found(tmp_path, content, encoding):
    sample = sample_of(tmp_path, "log.csv", content)
    assert (sample.dialect.encoding, sample.rows()) == (encoding, [{"product_id": "1", "brand": "Müller"}])
    assert sample.dialect.has_mark == content.startswith(b"\xef\xbb\xbf")
    assert bool(sample.notes) == (encoding == "windows-1252")


@pytest.mark.parametrize(("line", "number"), [("1,Müller\n", 20), ("1,Smith\n", 2000)])
def test_one_wrong_byte_is_a_bad_record_and_no_other_encoding(tmp_path, line, number):
    sample = sample_of(tmp_path, "log.csv", ("product_id,brand\n" + line * number).encode() + b"2,M\xfcller\n")
    assert (sample.dialect.encoding, len(sample.rows())) == ("utf-8", number)
    assert sample.unreadable == {"not valid utf-8": 1}
    assert sample.notes == ('a few bytes are no UTF-8; encoding = "windows-1252" would read them as: Müller',)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("ts,item,user\n1,2,3\n", True),
        ("1569888000,2,3\n1569888001,4,5\n", False),
        ("a,b,c\nx,17,z\n", True),
        ("anna,kettle,view\nbert,mug,cart\n", None),
        (",timestamp,visitorid\n0,1433221332117,5\n", True),
    ],
)
def test_a_header_is_told_from_records_or_is_not_sure(tmp_path, text, header):
    assert sample_of(tmp_path, "log.csv", text).dialect.header is header


def test_packed_files_are_unpacked(tmp_path):
    assert sample_of(tmp_path, "log.csv.gz", gzip.compress(TABLE.encode())).rows() == ROWS
    assert sample_of(tmp_path, "log.csv.bz2", bz2.compress(TABLE.encode())).rows() == ROWS
    with pytest.raises(UsageError, match=r"log2.csv.gz can't be read"):
        sample_of(tmp_path, "log2.csv.gz", b"this is no gzip")


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1}\n{"a":2}\n',
        '{"a":1}{"a":2}',
        '[{"a":1},{"a":2}]',
        '[\n{"a":1},\n{"a":2}\n]\n',
        '{\n "a": 1\n}\n{\n "a": 2\n}\n',
        '{"a":1},{"a":2} trailing words\n',
    ],
)
def test_json_objects_are_found_wherever_they_stand(text):
    unreadable = Counter()
    assert [value for value, _, _ in json_values(text, unreadable)] == [{"a": "1"}, {"a": "2"}]
    assert not unreadable


def test_a_line_without_a_json_object_is_counted():
    unreadable = Counter()
    assert len(list(json_values('{"a":1}\nno json\n{"a":2}\n17\n', unreadable))) == 2
    assert unreadable == {"no JSON object": 2}


def test_numbers_in_json_stay_as_written(tmp_path):
    [row] = sample_of(
        tmp_path, "log.jsonl", '{"id": 18446744073709551615, "price": 1.50, "is": true, "no": null}'
    ).rows()
    assert row == {"id": "18446744073709551615", "price": "1.50", "is": "true", "no": None}
    assert isinstance(row["id"], Number)


def test_an_array_is_one_row_per_element_and_a_record_without_it_one_row(tmp_path):
    sample = sample_of(tmp_path, "log.jsonl", '{"u":{"id":5},"items":[{"sku":"A"},{"sku":"B"}]}\n{"u":{"id":6}}\n')
    assert (sample.arrays, sample.columns) == (("items",), ("u.id", "items"))
    assert sample.rows("items") == [
        {"u.id": "5", "items.sku": "A"},
        {"u.id": "5", "items.sku": "B"},
        {"u.id": "6"},
    ]
    assert sample.rows()[0] == {"u.id": "5", "items": '[{"sku":"A"},{"sku":"B"}]'}


def test_parquet_is_read_with_its_types_and_nanoseconds(tmp_path):
    times = pd.to_datetime(["2023-05-01 10:00:00.123456789"]).astype("datetime64[ns]")
    pd.DataFrame({"ts": times, "item_id": [11], "price": [1.5]}).to_parquet(tmp_path / "log.parquet")
    sample = read_sample([tmp_path / "log.parquet"])
    assert (sample.dialect.format, sample.types["ts"]) == ("parquet", "TIMESTAMP_NS")
    [row] = sample.rows()
    assert row["ts"].startswith("2023-05-01 10:00:00.123456")
    assert (row["item_id"], row["price"]) == ("11", "1.5")


def test_a_delta_table_is_read_as_it_is_now(tmp_path):
    write_deltalake(str(tmp_path / "log"), pd.DataFrame({"item_id": [1]}))
    write_deltalake(str(tmp_path / "log"), pd.DataFrame({"item_id": [2]}), mode="overwrite")
    sample = read_sample([tmp_path / "log"])
    assert (sample.dialect.format, sample.rows()) == ("delta", [{"item_id": "2"}])


def test_a_folder_is_read_as_one_log_with_its_partitions(tmp_path):
    for kind in ("view", "cart"):
        folder = tmp_path / "log" / f"event_type={kind}"
        folder.mkdir(parents=True)
        (folder / "part-0.csv").write_text("product_id,user_id\n7,1\n")
    (tmp_path / "log" / "_SUCCESS").touch()
    rows = read_sample([tmp_path / "log"]).rows()
    assert rows == [
        {"product_id": "7", "user_id": "1", "event_type": "cart"},
        {"product_id": "7", "user_id": "1", "event_type": "view"},
    ]


def test_many_files_are_sampled_and_different_columns_are_named(tmp_path):
    for number in range(20):
        (tmp_path / f"{number:02}.json").write_text(json.dumps({"product_id": number}))
    sample = read_sample([tmp_path])
    assert len(sample.files) + sample.more_files == 20
    assert len(sample.files) <= 8
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("product_id,user_id\n7,1\n")
    two.write_text("product_id,customer_id\n7,1\n")
    sample = read_sample([one, two])
    assert sample.not_in_all == {"user_id", "customer_id"}
    assert "two.csv has other columns than one.csv: it lacks user_id and adds customer_id" in sample.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("event_time,product_id\n", "no records"),
        ("[]", "no JSON object"),
        (b"\x00\x01\x02" * 50, "neither text nor Parquet"),
        (b"PAR1 but no more", "can't be read as Parquet"),
    ],
)
def test_a_file_without_records_is_named_with_what_is_wrong(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        sample_of(tmp_path, "log", content)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        read_sample([tmp_path / "gone.csv"])
    with pytest.raises(UsageError, match="has no files"):
        read_sample([tmp_path])
