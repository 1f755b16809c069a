"""An Airflow DAG that runs the chain every 15 minutes.

Put this file into the DAGs folder of a worker that has the project. To recompute a time span by hand, trigger the DAG
with the parameters `start` and `end` (UTC, for example 2019-11-01).
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

PROJECT = "/opt/store"
EVENTS = "/data/events"
LAKE = "/data/lake"
# Pass the parameters by environment variables, because the shell would execute a text inside the command itself.
SPAN = '${START:+--from "$START"} ${END:+--to "$END"}'

with DAG(
    dag_id="lambda_spark",
    description="Ingest new events, update trends, similarity and recommendations",
    schedule=timedelta(minutes=15),
    start_date=datetime(2024, 1, 1),
    # Do not repeat missed runs, because one run ingests all new events.
    catchup=False,
    max_active_runs=1,
    params={
        "start": Param("", type="string", description="Recompute trends from this time (UTC) on. Empty: what is new."),
        "end": Param("", type="string", description="Recompute trends up to this time (UTC). Empty: what is new."),
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
) as dag:
    run = BashOperator(
        task_id="run",
        bash_command=f"{PROJECT}/spark-submit.sh run {EVENTS} --lake {LAKE} {SPAN}",
        env={"START": "{{ params.start }}", "END": "{{ params.end }}"},
        append_env=True,
        # Skip the task, rather than fail it, while another run is active on the lake.
        skip_on_exit_code=75,
        execution_timeout=timedelta(hours=2),
    )
