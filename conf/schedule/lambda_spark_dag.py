"""The chain every quarter of an hour, as an Airflow DAG; put it into the DAGs folder of a worker that has the project.

A backfill by hand: trigger the DAG with the parameters `start` and `end` (UTC, like 2019-11-01).
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

PROJECT = "/opt/store"
EVENTS = "/data/events"
LAKE = "/data/lake"
# The parameters come in by the environment: a text in the command itself could be a command.
SPAN = '${START:+--from "$START"} ${END:+--to "$END"}'

with DAG(
    dag_id="lambda_spark",
    description="Take in what is new, renew trends, similarity and recommendations",
    schedule=timedelta(minutes=15),
    start_date=datetime(2024, 1, 1),
    # A run takes all that is new, whatever was missed.
    catchup=False,
    max_active_runs=1,
    params={
        "start": Param("", type="string", description="recompute trends from this time (UTC) on; empty: what is new"),
        "end": Param("", type="string", description="recompute trends up to this time (UTC); empty: what is new"),
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
) as dag:
    run = BashOperator(
        task_id="run",
        bash_command=f"{PROJECT}/spark-submit.sh run {EVENTS} --lake {LAKE} {SPAN}",
        env={"START": "{{ params.start }}", "END": "{{ params.end }}"},
        append_env=True,
        # Somebody else is at work on the lake: skipped, not failed.
        skip_on_exit_code=75,
        execution_timeout=timedelta(hours=2),
    )
