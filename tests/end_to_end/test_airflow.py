"""Tests that the project's DAG loads in a real Airflow, runs all jobs, and skips when a lock is held."""

import os
import re
import subprocess

import pytest

from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import EVENTS, RECOMMENDATIONS
from tests.commands import held
from tests.environments import python_of
from tests.faults.killing import deliveries
from tests.sessions import PROJECT

pytestmark = [pytest.mark.process, pytest.mark.long]


@pytest.fixture
def airflow(tmp_path):
    """Airflow's command line, with a new home folder that contains only the project's DAG."""
    python = python_of(PROJECT / "tests" / "end_to_end" / "requirements-airflow.txt")
    folder = tmp_path / "airflow" / "dags"
    folder.mkdir(parents=True)
    dag = (PROJECT / "conf" / "schedule" / "lambda_spark_dag.py").read_text()
    for name, path in (("PROJECT", PROJECT), ("EVENTS", tmp_path / "in"), ("LAKE", tmp_path / "lake")):
        dag, replaced = re.subn(rf'^{name} = ".*"$', f'{name} = "{path}"', dag, flags=re.MULTILINE)
        assert replaced == 1
    (folder / "lambda_spark_dag.py").write_text(dag)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "AIRFLOW_HOME": str(folder.parent),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def command(*arguments):
        done = subprocess.run(
            [str(python.parent / "airflow"), *arguments],
            capture_output=True, text=True, timeout=600, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    command("db", "migrate")
    return command


def test_a_real_airflow_runs_the_chain_and_skips_when_another_run_is_active(spark, airflow, tmp_path):
    (tmp_path / "in").mkdir()
    for number, lines in enumerate(deliveries(2)):
        (tmp_path / "in" / f"{number}.csv").write_text("\n".join([*lines, ""]))
    assert "No data found" in airflow("dags", "list-import-errors")

    output = airflow("dags", "test", "lambda_spark", "--conf", '{"start": "2019-10-01"}')
    assert "new_state=success" in output
    lake = Lake.open(spark, str(tmp_path / "lake"))
    assert lake[EVENTS].read().count() > 0
    assert lake[RECOMMENDATIONS].read().count() > 0

    other = held(lake, "run", 600)
    try:
        assert "new_state=skipped" in airflow("dags", "test", "lambda_spark")
    finally:
        other.kill()
        other.wait()
