"""What a job is started with: packages, jars, and the code that lies there."""

import os
import shutil

import pytest

from lambda_spark.cli import launch
from lambda_spark.errors import LambdaSparkError
from tests.commands import command, executable
from tests.sessions import PROJECT


def copy(folder):
    """The project's files without its environment."""
    for name in ("jobs", "lambda_spark", "conf"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "spark-submit.sh", folder)
    return folder


@pytest.mark.process
def test_a_job_runs_the_code_that_lies_there_however_old_its_files_are(tmp_path):
    # As a release that is unpacked over another one which has run: its files are older than that one's first start.
    project = copy(tmp_path)
    (project / ".venv").symlink_to(PROJECT / ".venv")
    module = project / "lambda_spark" / "job.py"
    module.write_text(module.read_text() + "\nprint('the code that lies there')\n")
    for path in (project / "lambda_spark").rglob("*"):
        os.utime(path, (0, 0))
    os.utime(project / "lambda_spark", (0, 0))
    code, output, errors = command("status", "--lake", tmp_path / "none", cwd=tmp_path, project=project)
    assert "the code that lies there" in output, errors
    assert code == 2


@pytest.mark.process
def test_jars_that_could_not_be_fetched_are_missing_also_for_the_settings_of_before(tmp_path):
    project = copy(tmp_path)
    environment, settings = project / ".venv", project / "conf" / "spark-defaults.conf"
    executable(environment / "bin" / "python", "echo a job")
    executable(environment / "bin" / "spark-submit", "exit 1")
    for name in ("requirements.txt", "spark-defaults.conf"):
        shutil.copy(project / "conf" / name, environment / f"{name}.stamp")
    assert command("status", cwd=tmp_path, project=project)[:2] == (0, "a job\n")
    before = settings.read_text()
    for text in (f"{before}# another memory\n", before):
        settings.write_text(text)
        code, output, errors = command("status", cwd=tmp_path, project=project)
        assert (code, output) == (2, "")
        assert "could not be fetched" in errors


def test_kafkas_jars_are_fetched_until_they_are_there_and_not_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "PROJECT", tmp_path)
    conf, environment = tmp_path / "kafka.conf", tmp_path / ".venv"
    conf.write_text("one")
    executable(environment / "bin" / "spark-submit", "true")
    launch.fetch_jars(conf, environment, "jars")

    # Whoever starts a job then need not be one who may write here.
    (tmp_path / ".setup.lock").unlink()
    launch.fetch_jars(conf, environment, "jars")
    assert not (tmp_path / ".setup.lock").exists()

    executable(environment / "bin" / "spark-submit", "exit 1")
    for text in ("another", "one"):
        conf.write_text(text)
        with pytest.raises(LambdaSparkError, match="could not be fetched"):
            launch.fetch_jars(conf, environment, "jars")


def test_what_the_user_adds_to_a_list_stands_beside_the_projects():
    ours = ["--jars", "delta.jar", "--driver-java-options", "-Dlog=here", "--conf", "a=1"]
    theirs = ["--jars", "store.jar", "--conf", "a=2", "--driver-java-options=-Dkrb5=b", "--verbose"]
    assert launch.with_added(ours, theirs) == [
        *("--jars", "delta.jar,store.jar", "--driver-java-options", "-Dlog=here -Dkrb5=b"),
        *("--conf", "a=1", "--conf", "a=2", "--verbose"),
    ]


def test_options_that_end_in_the_middle_of_a_quote_are_wrong_use(monkeypatch, capsys):
    monkeypatch.setenv("SPARK_SUBMIT_OPTIONS", "--conf 'a=1")
    with pytest.raises(SystemExit) as ended:
        launch.main(["status"])
    assert ended.value.code == 2
    assert "SPARK_SUBMIT_OPTIONS: No closing quotation" in capsys.readouterr().err
