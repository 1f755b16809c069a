import pytest
from py4j.protocol import Py4JJavaError

from lambda_spark.job import _in_one_line
from lambda_spark.report.text import clean, shown, table


def test_texts_are_aligned_left_and_numbers_right_and_null_is_a_dash():
    rows = [{"brand": "acme", "views": 5, "growth": 0.25}, {"brand": None, "views": 1200, "growth": None}]
    assert table(rows, {"growth": "+.2f"}).splitlines() == [
        "brand views growth",
        "acme      5  +0.25",
        "-      1200      -",
    ]
    assert table([]) == ""


def test_control_characters_cannot_reach_the_terminal():
    assert clean("a\x1b[2Jb\tc") == "a\\x1b[2Jb\\x09c"


def test_rows_are_shown_without_control_characters(spark):
    rows = spark.sql("select concat(char(27), '[2J', char(7), 'acme') brand")
    assert "\\x1b[2J" in shown(rows, 10)
    assert "\x1b" not in shown(rows, 10)


def test_a_failure_in_java_is_said_by_its_cause(spark):
    nowhere = spark._jvm.java.nio.file.Path.of("/no/such/file", spark._sc._gateway.new_array(spark._jvm.String, 0))
    with pytest.raises(Py4JJavaError) as failure:
        spark._jvm.java.nio.file.Files.readString(nowhere)
    assert _in_one_line(failure.value) == "NoSuchFileException: /no/such/file"
