"""Writes the generated parts of the READMEs, and the answers below their example queries.

    ./spark-submit.sh docs                 commands, settings, tables, and conf/lambda.toml
    ./spark-submit.sh docs --lake LAKE     also the answer of every query, from the lake of a fresh demo

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. A query is a fenced block of `sql`, and
its answer is the fenced block of `text` that follows. Tests fail when a generated part or an answer is out of date.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lambda_spark import settings as settings_module
from lambda_spark import source_description as description_module
from lambda_spark.cli.arguments import EXAMPLES, JOBS, PROGRAM, parser_of
from lambda_spark.settings import Settings
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import TABLES
from lambda_spark.text import shown
from tests.sessions import PROJECT, start_session

SETTINGS_FILE = PROJECT / "conf" / "lambda.toml"

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_QUERY = re.compile(r"(```sql\n(.*?)\n```\n\n```text\n)(.*?)(```)", re.DOTALL)
_OF_EVERY_JOB = ("--help", "--master", "--lake", "--conf-file", "--set")
_SQL_LIMIT = 100


def readmes() -> list[Path]:
    """List the READMEs of the project."""
    folders = [PROJECT, *(PROJECT / name for name in ("jobs", "conf", "data", "lambda_spark", "tests"))]
    found = {file for folder in folders for file in folder.glob("**/README.md" if folder != PROJECT else "README.md")}
    return sorted(found)


# --- Parts generated from the code ------------------------------------------------------------------------------------


def generated() -> dict[Path, str]:
    """Return, for each file with a generated part, the text that the file should have."""
    files = {file: _PART.sub(_filled, file.read_text()) for file in readmes()}
    return {**files, SETTINGS_FILE: settings_file()}


def _filled(match: re.Match[str]) -> str:
    return f"{match[1]}{PARTS[match[2]]()}{match[3]}"


def commands() -> str:
    """Describe every job with a sentence, its examples, and the options that only this job has."""
    return "".join(_command(job) for job in JOBS)


def _command(job: str) -> str:
    examples = "\n".join(f"{PROGRAM} {job} {words}".rstrip() for words in EXAMPLES[job])
    rows = [
        (_cell(f"`{_written(action)}`"), _cell(action.help or ""))
        for action in parser_of(job)._actions
        if not set(action.option_strings) & set(_OF_EVERY_JOB)
    ]
    options = f"\n{_table(('option', 'meaning'), rows)}" if rows else ""
    return f"\n### {job}\n\n{JOBS[job][0].upper()}{JOBS[job][1:]}.\n\n```sh\n{examples}\n```\n{options}"


def _written(action: argparse.Action) -> str:
    name = action.option_strings[-1] if action.option_strings else ""
    takes_value = action.nargs != 0
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
    several = "…" if action.nargs in ("*", "+") else ""
    return f"{name} {value}{several}".strip() if takes_value else name


class Setting(NamedTuple):
    """A setting, in the form that the README and conf/lambda.toml show."""

    section: str
    name: str
    default: str
    meaning: str


def settings() -> list[Setting]:
    """List all settings with their docstrings and with their default values as TOML."""
    found = []
    meanings = {
        **_docstrings_of_fields(Path(settings_module.__file__)),
        **_docstrings_of_fields(Path(description_module.__file__)),
    }
    for section in fields(Settings):
        values = getattr(Settings(), section.name)
        for setting in fields(values):
            meaning = meanings[type(values).__name__, setting.name]
            found.append(Setting(section.name, setting.name, _toml(getattr(values, setting.name)), meaning))
    return found


def _docstrings_of_fields(file: Path) -> dict[tuple[str, str], str]:
    found = {}
    for definition in ast.parse(file.read_text()).body:
        if isinstance(definition, ast.ClassDef):
            for field, text in zip(definition.body, definition.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    found[definition.name, field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def _toml(value: Any) -> str:
    if isinstance(value, timedelta):
        unit, length = next(
            (unit, value // length)
            for unit, length in (
                ("day", timedelta(days=1)),
                ("hour", timedelta(hours=1)),
                ("minute", timedelta(minutes=1)),
            )
            if not value % length
        )
        return f'"{length} {unit}{"s" if length > 1 else ""}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, date | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def settings_tables() -> str:
    """Describe the settings in one Markdown table per section."""
    parts = []
    for section in fields(Settings):
        rows = [
            (f"`{one.name}`", f"`{one.default}`", _cell(one.meaning))
            for one in settings()
            if one.section == section.name
        ]
        parts.append(f"\n### {section.name}\n\n{_table(('setting', 'default', 'meaning'), rows)}")
    return "".join(parts)


def settings_file() -> str:
    """Return the text of conf/lambda.toml, in which every setting stands with its default below a description."""
    lines = ["# All settings, each with its default. `--set section.key=value` overrides a setting for one command."]
    section = ""
    for one in settings():
        if one.section != section:
            section = one.section
            lines += ["", f"[{section}]"]
        lines += [
            *textwrap.wrap(one.meaning, 118, initial_indent="# ", subsequent_indent="# "),
            f"{one.name} = {one.default}",
        ]
    return "\n".join(lines) + "\n"


def tables() -> str:
    """Describe every table, with its columns."""
    return "".join(
        f"\n### {table.name}\n\n{table.comment}. Written by `{table.job}`.\n\n"
        + _table(
            ("column", "type", "meaning"),
            [(f"`{column.name}`", column.type, _cell(column.comment)) for column in table.columns],
        )
        for table in TABLES.values()
    )


PARTS: dict[str, Callable[[], str]] = {"commands": commands, "settings": settings_tables, "tables": tables}


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(names), *map(tuple, rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- Answers of queries -----------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A query in a README and the answer that stands below it."""

    file: Path
    query: str
    text: str


def answers() -> Iterator[Answer]:
    """Find every query in the READMEs."""
    for file in readmes():
        for match in _QUERY.finditer(file.read_text()):
            yield Answer(file, match[2], match[3])


def answer_of(lake: Lake, query: str) -> str:
    """Return what `./spark-submit.sh sql` prints for a query."""
    lake.register_views()
    return f"{shown(lake.spark.sql(query), _SQL_LIMIT).strip()}\n"


def _write_answers(lake: Lake) -> None:
    for file in readmes():
        text = _QUERY.sub(lambda match: f"{match[1]}{answer_of(lake, match[2])}{match[4]}", file.read_text())
        file.write_text(text)


def main(arguments: list[str]) -> None:
    """Write all documentation files that are out of date."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} docs", description=JOBS["docs"])
    parser.add_argument(
        "--lake", metavar="PATH", help="write the answers of queries too, from this lake of a fresh demo"
    )
    chosen = parser.parse_args(arguments)
    for file, text in generated().items():
        if file.read_text() != text:
            file.write_text(text)
            print(f"written: {file.relative_to(PROJECT)}")
    if chosen.lake:
        with TemporaryDirectory(prefix="docs-") as folder:
            spark = start_session("docs", Path(folder) / "spark.log", memory="2g")
            _write_answers(Lake.open(spark, chosen.lake))
            spark.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
