"""The errors that the project explains to a user in one line.

Any other exception is a bug, and the job reports it as a failure.
"""

import re
from typing import Any

_ADVICE = {
    r"no space left on device|disk quota exceeded": "make room on the disk and start the job again; committed rows "
    "stay",
    r"read-only file system|permission denied": "name a folder that this process may write; a lake must lie in such a "
    "folder",
    r"DELTA_INVALID_PROTOCOL_VERSION|DELTA_UNSUPPORTED_FEATURES": "a newer Delta wrote this table: name that Delta "
    "version in conf/spark-defaults.conf (spark.jars.packages), or bring the table back from a backup",
    r"DELTA_CONCURRENT_|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED": "another program keeps writing to this lake's "
    "tables: let only these jobs write there, and start the job again",
}
"""Patterns of failure messages, each with the advice for the user."""

_TRANSIENT = (
    r"no space left|quota exceeded|too many open files|input/output error|connection|timed ?out|unknown ?host|"
    r"unavailable|slow ?down|throttl|out ?of ?memory|executor"
)
"""Pattern of the messages of failures that may pass by themselves."""


def advice_for(message: str) -> str:
    """Find the advice for a failure of the machine or of Delta.

    Args:
        message: What the failure says.

    Returns:
        What the user can do; empty for an unknown failure.
    """
    return next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, message, re.IGNORECASE)), "")


def is_transient(message: str) -> bool:
    """Whether the machine or the network caused a failure to read, and not the file.

    Args:
        message: What the failure says.
    """
    return re.search(_TRANSIENT, message, re.IGNORECASE) is not None


def root_cause(error: Exception) -> str:
    """Describe the innermost cause of a failure in the JVM.

    Args:
        error: The error that Python received.

    Returns:
        One line with the Java exception's class and message, or with the error's own text where Java did not fail. At
        most 300 characters of the message are kept.
    """
    java: Any = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    if java is None:
        return " ".join(str(error).split())[:300]
    name = java.getClass().getSimpleName()
    return f"{name}: {' '.join(str(java.getMessage() or '').split())[:300]}"


class LambdaSparkError(Exception):
    """A failure that the project explains. Its text is one line that says what to do. The exit code is 1."""

    exit_code = 1


class UsageError(LambdaSparkError):
    """A wrong command line, setting or path. The exit code is 2."""

    exit_code = 2


class LakeError(LambdaSparkError):
    """A lake, or a table of it, that the job cannot use."""


class CheckpointError(LambdaSparkError):
    """A streaming checkpoint that is lost, or does not belong to the tables that its stream writes."""


class JobRunningError(LambdaSparkError):
    """Another process holds a lock of the lake that this job needs. The exit code is 75: try again later."""

    exit_code = 75


class KafkaError(LambdaSparkError):
    """A Kafka cluster that does not answer, refuses a request, or has deleted unread messages."""


class LeakError(LambdaSparkError):
    """An evaluation that would learn from the events that it asks for."""
