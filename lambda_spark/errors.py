"""What can go wrong, each with the line that a user reads. Everything else is a bug and shows as one."""


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
