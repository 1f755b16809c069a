"""Tests of how a job starts: it installs packages, fetches jars, passes options and runs the right code."""

import os
import shutil
import sys

import pytest

from lambda_spark.cli import jars, launch
from lambda_spark.errors import LambdaSparkError
from tests.commands import command, executable
from tests.sessions import PROJECT


def copy(folder):
    """Copy the project's files, but not its Python environment."""
    for name in ("jobs", "lambda_spark", "conf"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "spark-submit.sh", folder)
    return folder


@pytest.mark.process
def test_a_job_runs_the_present_code_even_if_its_files_are_old(tmp_path):
    # This happens when a new release is unpacked over an old one. The new files are older than the first start of
    # the old release.
    project = copy(tmp_path)
    (project / ".venv").symlink_to(PROJECT / ".venv")
    module = project / "lambda_spark" / "cli" / "job.py"
    module.write_text(module.read_text() + "\nprint('the present code')\n")
    for path in (project / "lambda_spark").rglob("*"):
        os.utime(path, (0, 0))
    os.utime(project / "lambda_spark", (0, 0))
    code, output, errors = command("status", "--lake", tmp_path / "none", cwd=tmp_path, project=project)
    assert "the present code" in output, errors
    assert code == 2


@pytest.mark.process
def test_after_a_failed_fetch_the_jars_are_missing_for_the_earlier_settings_too(tmp_path):
    project = copy(tmp_path)
    environment, settings = project / ".venv", project / "conf" / "spark-defaults.conf"
    # Let the stand-in for Python run the real code that fetches jars, and print a line for every job.
    fetch = f'exec "{sys.executable}" "$@"'
    executable(environment / "bin" / "python", f'case "$*" in *cli.jars*) {fetch} ;; esac\necho a job')
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


def test_kafkas_jars_are_fetched_once_and_again_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(jars, "PROJECT", tmp_path)
    conf, environment = tmp_path / "kafka.conf", tmp_path / ".venv"
    conf.write_text("one")
    executable(environment / "bin" / "spark-submit", "true")
    jars.fetch_jars(conf, environment, "jars")

    # If the jars already exist, the start opens no lock file. So a user without write permission can start jobs.
    (tmp_path / ".setup.lock").unlink()
    jars.fetch_jars(conf, environment, "jars")
    assert not (tmp_path / ".setup.lock").exists()

    executable(environment / "bin" / "spark-submit", "exit 1")
    for text in ("another", "one"):
        conf.write_text(text)
        with pytest.raises(LambdaSparkError, match="could not be fetched"):
            jars.fetch_jars(conf, environment, "jars")


def test_list_options_of_the_user_are_joined_to_those_of_the_project():
    project_options = ["--jars", "delta.jar", "--driver-java-options", "-Dlog=here", "--conf", "a=1"]
    user_options = ["--jars", "store.jar", "--conf", "a=2", "--driver-java-options=-Dkrb5=b", "--verbose"]
    assert launch.with_added(project_options, user_options) == [
        *("--jars", "delta.jar,store.jar", "--driver-java-options", "-Dlog=here -Dkrb5=b"),
        *("--conf", "a=1", "--conf", "a=2", "--verbose"),
    ]


def test_an_unclosed_quote_in_the_users_options_is_wrong_use(monkeypatch, capsys):
    monkeypatch.setenv("SPARK_SUBMIT_OPTIONS", "--conf 'a=1")
    with pytest.raises(SystemExit) as ended:
        launch.main(["status"])
    assert ended.value.code == 2
    assert "SPARK_SUBMIT_OPTIONS: No closing quotation" in capsys.readouterr().err
