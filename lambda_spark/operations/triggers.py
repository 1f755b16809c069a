"""When a streaming job takes its micro-batches."""

from __future__ import annotations

import re

from lambda_spark.errors import UsageError

AVAILABLE_NOW = "available-now"


def check_trigger(text: str) -> str:
    """`available-now`, or an interval as Spark reads it. Raises UsageError for anything else."""
    if text == AVAILABLE_NOW or re.fullmatch(r"[1-9]\d{0,6} (second|minute|hour)s?", text):
        return text
    raise UsageError(f"'{text}' is neither '{AVAILABLE_NOW}' nor an interval like '10 seconds' or '5 minutes'")
