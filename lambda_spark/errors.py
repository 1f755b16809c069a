"""The errors that a job explains to the user in one line.

Any exception of another class is a bug, and the job reports it as a failure.
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
"""Regular expressions for failure messages, each with the advice that the user gets."""

_TRANSIENT = (
    r"no space left|quota exceeded|too many open files|input/output error|connection|timed ?out|unknown ?host|"
    r"unavailable|slow ?down|throttl|out ?of ?memory|executor"
)
"""Regular expression for the messages of failures that may go away without a change, like a lost connection."""


def advice_for(message: str) -> str:
    """Find the advice for a failure that the machine or Delta caused.

    Args:
        message: The message of the failure.

    Returns:
        What the user can do; empty for an unknown failure.
    """
    return next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, message, re.IGNORECASE)), "")


def is_transient(message: str) -> bool:
    """Whether the machine or the network, and not the file itself, caused a failure to read a file.

    Args:
        message: The message of the failure.
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
    """A failure that a job explains in one line, with what the user can do. The job's exit code is 1."""

    exit_code = 1


class UsageError(LambdaSparkError):
    """A wrong command line, setting or path. The job's exit code is 2."""

    exit_code = 2


class LakeError(LambdaSparkError):
    """A lake, or a table of it, that the job cannot use."""


class CheckpointError(LambdaSparkError):
    """A streaming checkpoint that is lost, or does not belong to the tables that its stream writes."""


class JobRunningError(LambdaSparkError):
    """Another process holds a lock that this job needs. The job's exit code is 75, which means: try again later."""

    exit_code = 75


class KafkaError(LambdaSparkError):
    """A Kafka cluster that does not answer, refuses a request, or has deleted unread messages."""


class LeakError(LambdaSparkError):
    """An evaluation whose lists would be computed from the same events that they are asked to predict."""
