"""What several steps share of a session."""

import threading

import pytest

from lambda_spark.spark import side_by_side


def test_what_is_done_side_by_side_is_all_done_before_one_failure_is_raised():
    both, done = threading.Barrier(2, timeout=60), []

    def fail():
        both.wait()
        raise ValueError("one")

    def succeed():
        both.wait()
        done.append("the other")
        return "what it returns"

    with pytest.raises(ValueError, match="one"):
        side_by_side(fail, succeed)
    assert done == ["the other"]
    assert side_by_side(succeed, succeed) == ["what it returns"] * 2
