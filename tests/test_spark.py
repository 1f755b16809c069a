"""Tests of the helpers in `lambda_spark/spark.py`."""

import threading

import pytest

from lambda_spark.spark import run_concurrently


def test_all_concurrent_calls_end_before_the_error_of_one_is_raised():
    both_running, done = threading.Barrier(2, timeout=60), []

    def fail():
        both_running.wait()
        raise ValueError("failed")

    def succeed():
        both_running.wait()
        done.append("succeeded")
        return "result"

    with pytest.raises(ValueError, match="failed"):
        run_concurrently(fail, succeed)
    assert done == ["succeeded"]
    assert run_concurrently(succeed, succeed) == ["result"] * 2
