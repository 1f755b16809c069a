"""The `inspect` job. It looks at a sample of a log without Spark, and proposes a source description."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

from lambda_spark.cli.arguments import PROGRAM, parse
from lambda_spark.errors import LambdaSparkError, UsageError
from lambda_spark.inspection.proposal import inspect
from lambda_spark.inspection.ready import DEFAULT
from lambda_spark.report.inspection import inspection_text, next_step
from lambda_spark.text import strip_control_characters


def main(arguments: list[str]) -> int:
    """Print what a log is like, and the proposed description. Write the description where the user asks for that.

    Args:
        arguments: The options of the command line.

    Returns:
        The exit code: 1 if something is left for the user to decide.
    """
    try:
        parsed = parse("inspect", arguments)
        if parsed.write and parsed.write.exists() and not parsed.overwrite:
            raise UsageError(f"{parsed.write} exists already: name another file, or replace it with --overwrite")
        found = inspect(parsed.sources)
        print(inspection_text(found))
        if parsed.write:
            _write(parsed.write, found.toml())
        print(f"\n{strip_control_characters(next_step(found, str(parsed.write or '')))}")
    except LambdaSparkError as error:
        print(strip_control_characters(f"inspect: {error}"), file=sys.stderr)
        return error.exit_code
    return 0 if found.is_sure else 1


def options_for(sources: list[str]) -> list[str]:
    """Find out how files of a command without a source description must be read.

    Args:
        sources: Files and folders.

    Returns:
        Options to add to the command line: none for files in REES46's format.

    Raises:
        UsageError: A person must decide something first.
    """
    found, names = inspect(sources), " ".join(map(shlex.quote, sources))
    if found.needs_no_description:
        return []
    print(inspection_text(found), end="\n\n")
    if not found.is_sure:
        raise UsageError(
            f"{names} can't be read without a source description. What is sure of it stands above. Write it with "
            f"`{PROGRAM} inspect {names} --write shop.toml`, choose where it says NOT SURE, and add "
            "--source-file shop.toml"
        )
    if found.ready and found.ready.name != DEFAULT:
        return ["--source", found.ready.name]
    with NamedTemporaryFile("w", prefix="proposed-", suffix=".toml", delete=False, encoding="utf-8") as file:
        file.write(found.toml())
    return ["--source-file", file.name]


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}") from None
    print(f"\nwritten: {file}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
