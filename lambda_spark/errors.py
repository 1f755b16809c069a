"""The exception classes whose failures a job explains to the user in one line.

A job reports an exception of any other class as an unexpected failure.
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
"""Advice that a job prints after a failure, by a regular expression that matches the failure's message."""

_TRANSIENT = (
    r"no space left|quota exceeded|too many open files|input/output error|connection|timed ?out|unknown ?host|"
    r"unavailable|slow ?down|throttl|out ?of ?memory|executor"
)
"""Regular expression for messages of failures that may go away by themselves, like a lost connection."""


def advice_for(message: str) -> str:
    """Find the advice to print for a failure that the machine or Delta Lake caused.

    Args:
        message: The message of the failure.

    Returns:
        A sentence that tells the user what to do, or an empty text for an unknown failure.
    """
    return next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, message, re.IGNORECASE)), "")


def is_transient(message: str) -> bool:
    """Return whether the machine or the network, and not the file itself, caused a failure to read a file.

    Args:
        message: The message of the failure.
    """
    return re.search(_TRANSIENT, message, re.IGNORECASE) is not None


def root_cause(error: Exception) -> str:
    """Describe the innermost cause of a failure in the JVM.

    Args:
        error: The error that Python received.

    Returns:
        One line with the class and message of the Java exception. Without a Java exception, the line is the text of
        the Python error. The message or text is cut to 300 characters.
    """
    java: Any = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    if java is None:
        return " ".join(str(error).split())[:300]
    name = java.getClass().getSimpleName()
    return f"{name}: {' '.join(str(java.getMessage() or '').split())[:300]}"


class LambdaSparkError(Exception):
    """A failure that a job explains in one line, often with advice. The job then ends with exit code 1."""

    exit_code = 1


class UsageError(LambdaSparkError):
    """A command line, setting or path is wrong. The job then ends with exit code 2."""

    exit_code = 2


class LakeError(LambdaSparkError):
    """The job cannot use the lake (the folder of Delta tables) or one of its tables."""


class CheckpointError(LambdaSparkError):
    """A stream's checkpoint is lost, or does not belong to the tables that the stream writes."""


class JobRunningError(LambdaSparkError):
    """Another process holds a lock that this job needs. Exit code 75 tells the caller to try again later."""

    exit_code = 75


class KafkaError(LambdaSparkError):
    """The Kafka cluster does not answer, refuses a request, or has deleted messages that the job had not read."""


class LeakError(LambdaSparkError):
    """An evaluation would compute recommendation lists from the very events that the lists must predict."""
