"""Tests of the command `lookup`, which reads a stored list of recommendations without Spark."""

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable

from lambda_spark.cli import lookup
from lambda_spark.cli.lookup import look_up, main
from lambda_spark.errors import LakeError
from lambda_spark.spark import literal_rows
from lambda_spark.storage.tables import RECOMMENDATIONS


def rows_of(path, user):
    return look_up(path, user).rows


@pytest.fixture
def written(lake):
    rows = [
        {"user_id": 7, "rank": 2, "product_id": 12, "category_code": None, "price": None, "reason": "much viewed"},
        {"user_id": 7, "rank": 1, "product_id": 11, "category_code": "a.b", "price": 9.5, "score": 0.25},
        {"user_id": 8, "rank": 1, "product_id": 13},
    ]
    schema = ", ".join(f"{column.name}: {column.type}" for column in RECOMMENDATIONS.columns_for("integer"))
    lake[RECOMMENDATIONS].replace(literal_rows(lake.spark, rows, schema), settings={}, note={})
    return lake


def test_a_users_list_equals_the_table_in_order_of_rank(written):
    expected = written[RECOMMENDATIONS].read().where("user_id = 7").orderBy("rank").collect()
    assert rows_of(written.path, "7") == [row.asDict() for row in expected]
    assert [row["product_id"] for row in rows_of(written.path, "7")] == [11, 12]


def test_lists_are_read_again_if_they_are_replaced_and_their_files_deleted_meanwhile(written, monkeypatch):
    rows = written[RECOMMENDATIONS].read().where("rank = 1").persist()
    opened = []

    def open_and_replace(location):
        opened.append(DeltaTable(location))
        if len(opened) == 1:
            written[RECOMMENDATIONS].replace(rows, settings={}, note={})
            for file in opened[0].file_uris():
                Path(file).unlink()
        return opened[-1]

    rows.count()
    monkeypatch.setattr(lookup, "DeltaTable", open_and_replace)
    assert [row["product_id"] for row in rows_of(written.path, "7")] == [11]
    assert len(opened) == 2


def test_lost_files_of_the_lists_are_reported_in_one_line(written, capsys):
    for file in DeltaTable(f"{written.path}/{RECOMMENDATIONS.name}").file_uris():
        Path(file).unlink()
    assert main(["--user", "7", "--lake", written.path]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "recommendations can't be read" in line


def test_the_command_prints_a_table_or_json(written, capsys):
    assert main(["--user", "7", "--lake", written.path]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["rank", "product_id", "category_code", "brand", "price", "score", "reason"]
    assert (first.split(), second.split()[:3]) == (["1", "11", "a.b", "-", "9.50", "0.2500", "-"], ["2", "12", "-"])
    assert main(["--user", "7", "--lake", written.path, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(row["product_id"], row["price"]) for row in printed["recommendations"]] == [(11, 9.5), (12, None)]


def test_a_user_without_a_list_and_a_folder_without_a_lake_get_a_message(written, capsys, tmp_path):
    assert main(["--user", "9", "--lake", written.path]) == 0
    assert "no list is written for user 9" in capsys.readouterr().out
    with pytest.raises(LakeError, match="has no lists: run `recommend` first"):
        look_up(str(tmp_path), "7")
    assert main(["--user", "7", "--lake", str(tmp_path / "nowhere")]) == 2
    assert "is no lake yet" in capsys.readouterr().err
    assert main(["--lake", written.path]) == 2
    assert "name a --user" in capsys.readouterr().err
    assert main(["--user", "me", "--lake", written.path]) == 2
    assert "a user id of this lake is a whole number above 0, not 'me'" in capsys.readouterr().err
