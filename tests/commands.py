"""Test helpers that run `./spark-submit.sh` as a user does, or start a process that holds a lock."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

from tests.conftest import PROJECT


def command(*arguments, cwd, project=PROJECT, **environment):
    """Run `./spark-submit.sh` until it ends, and return its exit code, standard output and standard error."""
    done = subprocess.run(
        [str(project / "spark-submit.sh"), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def executable(path, script):
    """Write a shell script to an executable file that stands in for a real program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class Command:
    """A running `./spark-submit.sh`. Its process group is its own, so that a signal reaches all its processes."""

    def __init__(self, *arguments, cwd, program=(str(PROJECT / "spark-submit.sh"),), **environment):
        self.log = cwd / f"{arguments[0]}-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*program, *map(str, arguments)],
                cwd=cwd,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def end(self, number):
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        return self.process.wait(30)


@contextmanager
def ended_at_last(commands):
    """Kill the commands that still run when the `with` block ends."""
    try:
        yield
    finally:
        for command in commands:
            command.end(signal.SIGKILL)


def held(lake, name, seconds):
    """Start another process that holds the lock of one kind of job for some seconds."""
    with lake.locks.job(name):
        pass
    holder = f"""
import fcntl, time
lock = open({str(lake.path + "/_locks/job-" + name + ".lock")!r}, "a+")
fcntl.lockf(lock, fcntl.LOCK_EX); print("held", flush=True); time.sleep({seconds})"""
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process
