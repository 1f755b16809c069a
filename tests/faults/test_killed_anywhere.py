"""Tests of the project's promise 2: after SIGKILL at any point and a restart, all tables are as without the kill.

The tests start real processes with the real command. They compare the tables, row for row, with those of a run without
kills. The comparison leaves out the columns that say which run wrote a row. The short test makes two kills. The long
test kills at all points and at random moments, for hours:

    KILLS=200 RECORD=kills.jsonl ./spark-submit.sh test tests/faults/test_killed_anywhere.py -m long

KILLS is the total number of kills. RECORD is a file to which each kill and each comparison is appended. A second start
of the test continues from this file. To kill another job, add a `Step` with its command and the points at its commits.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.forget import main as forget
from jobs.maintain import main as maintain
from jobs.run import run
from jobs.similarity import similarity
from lambda_spark.storage.lake import Lake
from tests.faults.killing import (
    FIRST_RUN,
    FORGET,
    LATER_RUN,
    MAINTAIN,
    REBUILD,
    SETTINGS,
    deliveries,
    run_job,
    tables_of,
)
from tests.in_session import do

pytestmark = pytest.mark.process

SEED = 7


@dataclass(frozen=True)
class Step:
    """A command and its kills. One process is started for each kill, and then one process runs to its end."""

    job: str
    kills: tuple[str | float, ...] = ()
    """Each kill happens at a named point, or some seconds after the first line of output of the process."""
    reaches_all: bool = True
    """Whether every kill of the step must happen.

    After a kill at a random moment, a process may never reach a later point. The commit at this point may already be
    made."""


@pytest.fixture(scope="module")
def inboxes(tmp_path_factory):
    """One folder for each delivery, with the files of this delivery and of all earlier deliveries."""
    folder = tmp_path_factory.mktemp("inboxes")
    stages = []
    for number, lines in enumerate(deliveries(SEED)):
        stage = folder / str(number)
        stage.mkdir()
        for earlier in stages[-1].iterdir() if stages else ():
            shutil.copy2(earlier, stage)
        for part in (0, 1):
            (stage / f"{number}-{part}.csv").write_text("\n".join([lines[0], *lines[1 + part :: 2], ""]))
        stages.append(stage)
    return stages


JOBS = {"run": run, "similarity": similarity, "maintain": maintain, "forget": forget}


@pytest.fixture(scope="module")
def undisturbed(session, inboxes, tmp_path_factory):
    """A function that runs the commands of the given steps without kills, and returns the resulting tables.

    Each resulting lake is kept for reuse, because many histories begin with the same commands.
    """
    folder = tmp_path_factory.mktemp("undisturbed")
    lakes: dict[tuple[str, ...], Path] = {}

    def lake_after(jobs: tuple[str, ...]) -> Path:
        if not jobs:
            return folder / "none"
        if jobs not in lakes:
            before, path = lake_after(jobs[:-1]), folder / str(len(lakes))
            if before.exists():
                shutil.copytree(before, path)
            stage = inboxes[[*map(delivers, jobs)].count(True) - 1]
            shutil.rmtree(folder / "in", ignore_errors=True)
            shutil.copytree(stage, folder / "in")
            name = jobs[-1].split()[0]
            do(name, JOBS[name], session, *arguments_of(jobs[-1], folder / "in", path))
            lakes[jobs] = path
        return lakes[jobs]

    return lambda steps: tables_of(Lake.open(session, str(lake_after(tuple(step.job for step in steps)))))


def delivers(job: str) -> bool:
    """Return whether new files arrive before the given job starts."""
    return job == "run"


def arguments_of(job: str, inbox: Path, lake: Path) -> list[str]:
    """Return the words of the command line after the job's name."""
    _, *options = job.split()
    return [*options, *([str(inbox)] if delivers(job) else []), "--lake", str(lake), *SETTINGS]


def disturbed(folder: Path, inboxes: list[Path], steps: list[Step], record) -> None:
    """Run the steps on a new lake. For each step, kill one process per kill, then let one process finish the step."""
    delivered = 0
    for number, step in enumerate(steps):
        if delivers(step.job):
            shutil.copytree(inboxes[delivered], folder / "in", dirs_exist_ok=True)
            delivered += 1
        arguments = (step.job.split()[0], *arguments_of(step.job, folder / "in", folder / "lake"))
        for kill in step.kills:
            at = {"at": kill} if isinstance(kill, str) else {"after": kill}
            ended = run_job(*arguments, **at)
            record(step=number, job=step.job, kill=kill, killed=ended.killed, seconds=round(ended.seconds, 1))
            # A process that ended without a kill must have succeeded.
            assert ended.killed or ended.code == 0, ended.output
            assert ended.killed or not step.reaches_all, f"{kill} was never reached:\n{ended.output}"
        ended = run_job(*arguments)
        assert ended.code == 0, ended.output


def assert_tables_equal_undisturbed(spark, folder, expected):
    actual = tables_of(Lake.open(spark, str(folder / "lake")))
    assert actual.keys() == expected.keys()
    for name, rows in expected.items():
        assert (name, actual[name] - rows, rows - actual[name]) == (name, Counter(), Counter())


def test_after_two_kills_all_tables_equal_those_of_an_undisturbed_run(spark, tmp_path, inboxes, undisturbed):
    # Commit 1 to a table creates the table, so commit 2 is the first append. The first kill leaves events that no
    # checkpoint records. The second kill leaves pair counts whose baskets are not stored yet.
    steps = [Step("run", ("after events 2", "after co_interactions 2"))]
    killed = []
    disturbed(tmp_path, inboxes, steps, lambda **entry: killed.append(entry))
    assert [entry["killed"] for entry in killed] == [True] * 2
    assert_tables_equal_undisturbed(spark, tmp_path, undisturbed(steps))


KILLS = int(os.environ.get("KILLS", "200"))


FORGET_ONE, FORGET_ANOTHER = "forget --user 3 --refuse", "forget --user 2 --vacuum"


def plan(number: int) -> list[Step]:
    """Return the steps of the history `number`. The first four histories kill at all named points, others at random."""
    every_point = [
        [Step("run", tuple(FIRST_RUN)), Step("run", tuple(LATER_RUN)), Step("run")],
        [Step("run"), Step("similarity --rebuild", tuple(REBUILD)), Step("run"), Step("run", tuple(LATER_RUN))],
        [Step("run"), Step("run"), Step("maintain", tuple(MAINTAIN)), Step("run")],
        [Step("run"), Step("run"), Step(FORGET_ONE, tuple(FORGET)), Step("run")],
    ]
    if number < len(every_point):
        return every_point[number]
    dice = random.Random(number)

    def killed(job, named):
        count = dice.randint(2, 4)
        chosen = sorted(dice.sample(range(len(named)), count))
        moments = [round(dice.uniform(0.0, 12.0), 2) for _ in range(count)]
        return Step(job, (*moments, *(named[at] for at in chosen)), reaches_all=False)

    between = [("maintain", MAINTAIN), (FORGET_ONE, FORGET), (FORGET_ANOTHER, FORGET)]
    return [
        killed("run", LATER_RUN),
        killed("run", LATER_RUN),
        killed(*between[number % len(between)]),
        killed("run", LATER_RUN),
    ]


@pytest.mark.long
def test_after_kills_at_every_point_and_at_random_moments_all_tables_are_equal(spark, tmp_path, inboxes, undisturbed):
    file = Path(os.environ.get("RECORD", tmp_path / "kills.jsonl"))
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {entry["history"] for entry in entries if "equal" in entry}
    kills = sum(entry.get("killed", False) for entry in entries if entry["history"] in done)
    number = 0
    while kills < KILLS:
        if number not in done:
            folder = tmp_path / str(number)
            folder.mkdir()
            own = []

            def record(history=number, own=own, **entry):
                own.append(entry.get("killed", False))
                with file.open("a") as lines:
                    lines.write(json.dumps({"history": history, "at": f"{time.time():.0f}", **entry}) + "\n")

            disturbed(folder, inboxes, plan(number), record)
            assert_tables_equal_undisturbed(spark, folder, undisturbed(plan(number)))
            record(equal=True)
            kills += sum(own)
            shutil.rmtree(folder)
        number += 1
