"""What a value on the command line may be. Each raises argparse's own error, whose text argparse shows."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import TypeVar

from lambda_spark.errors import UsageError

Value = TypeVar("Value")


def checked(convert: Callable[[str], Value]) -> Callable[[str], Value]:
    """A conversion that raises UsageError as a type of argparse's."""

    @wraps(convert)
    def converted(text: str) -> Value:
        try:
            return convert(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


@checked
def user_id(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 2**63:
        raise UsageError(f"a user id is a whole number above 0, not '{text}'")
    return int(text)


@checked
def share(text: str) -> float:
    return _number_below(1, text, "a share is a number between 0 and 1")


def share_or_none(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else share(text)


@checked
def positive(text: str) -> float:
    return _number_below(float("inf"), text, "this is a number above 0")


def _number_below(limit: float, text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < limit:
        raise UsageError(f"{what}, not '{text}'")
    return number


@checked
def count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise UsageError(f"this is a whole number above 0, not '{text}'")
    return int(text)


@checked
def moment(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"a time is written 2019-11-01 or 2019-11-01T12:30:00, not '{text}'") from None
    if time.tzinfo is not None:
        raise UsageError(f"times are UTC; write '{text}' without a zone")
    return time
