from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from py4j.protocol import Py4JJavaError

from lambda_spark.cli import launch, lookup
from lambda_spark.cli.arguments import PROJECT
from lambda_spark.cli.job import _describe_failure
from lambda_spark.replay import play
from lambda_spark.report.result import result
from lambda_spark.settings import Settings
from lambda_spark.text import shown, strip_control_characters, table
from tests.deliveries import TRENDS, bring_up_to_date, deliver, event


def test_texts_are_aligned_left_and_numbers_right_and_null_is_a_dash():
    rows = [{"brand": "acme", "views": 5, "growth": 0.25}, {"brand": None, "views": 1200, "growth": None}]
    assert table(rows, {"growth": "+.2f"}).splitlines() == [
        "brand views growth",
        "acme      5  +0.25",
        "-      1200      -",
    ]
    assert table([]) == ""


def test_control_characters_are_replaced_by_their_code():
    assert strip_control_characters("a\x1b[2Jb\tc") == "a\\x1b[2Jb\\x09c"


def test_a_text_with_line_ends_stays_on_one_line():
    assert strip_control_characters("acme\n[  9.9 s] all is well") == "acme\\x0a[  9.9 s] all is well"
    assert len(table([{"brand": "acme\nother\u2028"}]).splitlines()) == 2


def test_rows_are_shown_without_control_characters(spark):
    rows = spark.sql("select concat(char(27), '[2J', char(7), 'acme', char(10), 'other') brand")
    assert "\\x1b[2J" in shown(rows, 10)
    assert "\x1b" not in shown(rows, 10)
    assert len(shown(rows, 10).splitlines()) == 5


def test_a_brand_cannot_control_the_terminal_in_the_result(lake, tmp_path):
    """Of two products, one has a rising trend. Its brand name contains control characters."""
    views = [
        event(datetime(2019, 10, 7) + timedelta(weeks=week, minutes=user), "view", product, user, "s")
        for week, counts in enumerate(((1, 30), (40, 30), (1, 0)))
        for product, count in enumerate(counts, 1)
        for user in range(1, count + 1)
    ]
    deliver(lake, tmp_path / "in", "one", [line.replace(",b,", ",\x1b]0;owned\x07,") for line in views])
    settings = Settings(trends=TRENDS)
    bring_up_to_date(lake, settings)
    text = result(lake, settings, None)
    [highest] = [line for line in text.splitlines() if line.startswith("Highest trend percentage")]
    assert "\\x1b]0;owned\\x07" in highest
    assert not {"\x1b", "\x07"} & set(text)


def test_a_failure_in_java_is_reported_by_its_cause(spark):
    missing_file = spark._jvm.java.nio.file.Path.of("/no/such/file", spark._sc._gateway.new_array(spark._jvm.String, 0))
    with pytest.raises(Py4JJavaError) as failure:
        spark._jvm.java.nio.file.Files.readString(missing_file)
    assert _describe_failure(failure.value) == "NoSuchFileException: /no/such/file"


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (launch.main, ["tr\x1b[2Jends"]),
        (lookup.main, ["--user", "1", "--lake", "/no\x1b[2J\nlake"]),
        (play.main, ["/no\x1b[2J\nfile", "--to", "/nowhere", "--rate", "1"]),
    ],
)
def test_a_users_input_cannot_control_the_terminal(capsys, main, arguments):
    with suppress(SystemExit):
        main(arguments)
    errors = capsys.readouterr().err
    assert "\\x1b[2J" in errors
    assert "\x1b" not in errors
    assert len(errors.splitlines()) == 1


def test_a_log_line_cannot_control_the_terminal(spark):
    """The log replaces control characters, but keeps the line breaks of a stack trace."""
    log4j = spark._jvm.org.apache.logging.log4j
    lines = (PROJECT / "conf" / "log4j2.properties").read_text().splitlines()
    conf = dict(line.split(" = ", 1) for line in lines if " = " in line)
    layout = log4j.core.layout.PatternLayout.newBuilder()
    layout.withPattern(conf["appender.file.layout.pattern"].replace("\\\\", "\\"))
    layout.withAlwaysWriteExceptions(conf["appender.file.layout.alwaysWriteExceptions"] == "true")
    event = log4j.core.impl.Log4jLogEvent.newBuilder()
    event.setLoggerName("spark").setLevel(log4j.Level.WARN)
    event.setMessage(log4j.message.SimpleMessage("acme\x1b[2J"))
    event.setThrown(spark._jvm.java.io.IOException("no\x07ise"))
    text = layout.build().toSerializable(event.build())
    assert "WARN spark: acme?[2J\n" in text
    assert text.count("IOException: no?ise\n") == 1
    assert "\tat " in text
