"""What can go wrong, each with the line that a user reads. Everything else is a bug and shows as one."""

import re
from typing import Any

_WAYS_OUT = {
    r"no space left on device|disk quota exceeded": "make room on the disk and start again; what is committed stays",
    r"read-only file system|permission denied": "name a folder that this process may write (a lake has to lie in one)",
    r"DELTA_INVALID_PROTOCOL_VERSION|DELTA_UNSUPPORTED_FEATURES": "a newer Delta wrote this table: read it with that "
    "one (spark.jars.packages in conf/spark-defaults.conf), or bring the table back from a backup",
    r"DELTA_CONCURRENT_|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED": "something else keeps writing to this lake's "
    "tables: leave that to these jobs, and start again",
}


def way_out(message: str) -> str:
    """What to do about a failure of the machine or of Delta, by what it says; empty where that is not known."""
    return next((advice for said, advice in _WAYS_OUT.items() if re.search(said, message, re.IGNORECASE)), "")


_MAY_PASS = (
    r"no space left|quota exceeded|too many open files|input/output error|connection|timed ?out|unknown ?host|"
    r"unavailable|slow ?down|throttl|out ?of ?memory|executor"
)


def may_pass(message: str) -> bool:
    """Whether a failure to read, by what it says, is the machine's or the network's and not the file's."""
    return re.search(_MAY_PASS, message, re.IGNORECASE) is not None


def reason_of(error: Exception) -> str:
    """The innermost cause of a failure in the JVM, in one line."""
    java: Any = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    while java is not None and java.getCause() is not None:
        java = java.getCause()
    if java is None:
        return " ".join(str(error).split())[:300]
    name = java.getClass().getSimpleName()
    return f"{name}: {' '.join(str(java.getMessage() or '').split())[:300]}"


class LambdaSparkError(Exception):
    """A failure that is explained: its text is one line that says what to do. The job ends with exit code 1."""

    exit_code = 1


class UsageError(LambdaSparkError):
    """A wrong command line, setting or path. The job ends with exit code 2."""

    exit_code = 2


class LakeError(LambdaSparkError):
    """A lake, or one of its tables, that is not what the job needs."""


class CheckpointError(LambdaSparkError):
    """A streaming checkpoint that does not belong to the tables it should continue."""


class JobRunningError(LambdaSparkError):
    """Another process is doing the same job on the same lake. The job ends with exit code 75: try later."""

    exit_code = 75


class KafkaError(LambdaSparkError):
    """A Kafka cluster does not answer, refuses, or no longer has what should be read."""


class LeakError(LambdaSparkError):
    """An evaluation would learn from what it asks for."""
