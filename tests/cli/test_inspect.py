"""Tests of the command `inspect`: exit codes, the file that it writes, and that it starts without Spark."""

import subprocess
import sys
import tomllib

import pytest

from lambda_spark.cli.inspect import main
from lambda_spark.inspection.description import SOURCES
from tests.commands import command
from tests.sessions import PROJECT

SURE = "ts;action;item_id;visitor_id\n1569888000;view;7;1\n1569888001;buy;8;2\n"
UNSURE = SURE.replace("action", "was")


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "log.csv"
    file.write_text(SURE)
    return file


def test_a_sure_description_is_written_and_never_over_another_file_unasked(log, tmp_path, capsys):
    target = tmp_path / "shop.toml"
    assert main([str(log), "--write", str(target)]) == 0
    printed = capsys.readouterr().out
    assert f"./spark-submit.sh run {log} --source-file {target}" in printed
    source = tomllib.loads(target.read_text())["source"]
    assert (source["delimiter"], source["event_types"]) == (";", {"view": "view", "buy": "purchase"})

    target.write_text("mine")
    assert main([str(log), "--write", str(target)]) == 2
    assert target.read_text() == "mine"
    [line] = capsys.readouterr().err.splitlines()
    assert "exists already: name another file, or replace it with --overwrite" in line
    assert main([str(log), "--write", str(target), "--overwrite"]) == 0
    assert target.read_text().startswith("# Proposed by `inspect` for log.csv")


def test_an_unsure_description_is_written_with_its_questions_and_exit_code_1(log, tmp_path, capsys):
    log.write_text(UNSURE)
    target = tmp_path / "shop.toml"
    assert main([str(log), "--write", str(target)]) == 1
    assert "1 thing is not sure: choose a line for each NOT SURE in" in capsys.readouterr().out
    assert '# event_type = "was"' in target.read_text().splitlines()


def test_a_known_log_is_named_and_a_log_of_rees46_needs_nothing(capsys):
    sample = SOURCES / "samples" / "retailrocket.csv"
    assert main([str(sample)]) == 0
    assert f"./spark-submit.sh run {sample} --source retailrocket" in capsys.readouterr().out
    assert main([str(SOURCES / "samples" / "rees46.csv")]) == 0
    assert "needs no description" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["gone.csv"], ["empty.csv"], ["log.csv", "--write", "no/such/folder.toml"]])
def test_wrong_use_is_one_line_and_exit_code_2(log, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_spark_is_not_loaded():
    script = (
        "import sys, lambda_spark.cli.inspect; print([name for name in sys.modules if name.split('.')[0] == 'pyspark'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.process
def test_the_real_command_ends_with_the_exit_codes_that_it_states(log, tmp_path):
    code, output, errors = command("inspect", log, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "2 records looked at = 2 events" in output
    log.write_text(UNSURE)
    code, output, errors = command("inspect", log, cwd=tmp_path)
    assert (code, errors) == (1, "")
    assert "NOT SURE" in output
    code, output, errors = command("inspect", tmp_path / "gone.csv", cwd=tmp_path)
    assert (code, output, errors) == (2, "", f"inspect: {tmp_path}/gone.csv: no such file or folder\n")
