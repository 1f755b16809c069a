"""Reads source descriptions, and writes them as TOML with a section `[source]`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lambda_spark.settings import load_settings
from lambda_spark.source_description import SourceDescription
from lambda_spark.text import strip_control_characters

SOURCES = Path(__file__).resolve().parents[2] / "conf" / "sources"
"""Folder of the ready descriptions."""


def load(file: Path) -> SourceDescription:
    """Read a source description from a file."""
    return load_settings(None, source_file=file).source


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Something that a sample does not decide."""

    key: str
    """The key of the description that a person has to set, like `time_format`, or a field, or an event name."""
    why: str
    section: str = ""
    """The section of the key below `[source]`: fields, event_types, or empty."""
    candidates: tuple[str, ...] = ()
    """Lines of a description, of which one may be right."""


def toml_of(description: SourceDescription, doubts: tuple[Doubt, ...], hints: tuple[str, ...], title: str) -> str:
    """Write a description.

    Args:
        description: The description. Keys with their default value are left out, but for the format.
        doubts: What is not decided. It is written as comments, with the candidates.
        hints: Lines of comment for the section `[source]`.
        title: First line of comment.
    """
    default = SourceDescription()
    sections = ("fields", "event_types")
    plain = [one.name for one in fields(SourceDescription) if one.name not in sections]
    lines = [_comment(title), "", "[source]"]
    lines += [
        f"{name} = {_toml(getattr(description, name))}"
        for name in plain
        if name == "format" or getattr(description, name) != getattr(default, name)
    ]
    lines += [_comment(hint) for hint in hints]
    lines += _doubts(doubts, "")
    for section in sections:
        values = getattr(description, section)
        undecided = _doubts(doubts, section)
        if values or undecided:
            lines += ["", f"[source.{section}]"]
            lines += [f"{key_of(name)} = {_toml(value)}" for name, value in values.items()]
            lines += undecided
    return "\n".join(lines) + "\n"


def _doubts(doubts: tuple[Doubt, ...], section: str) -> list[str]:
    lines = []
    for doubt in doubts:
        if doubt.section == section:
            lines.append(_comment(f"NOT SURE: {doubt.why}.{' Choose:' if doubt.candidates else ''}"))
            lines += map(_comment, doubt.candidates)
    return lines


def _comment(text: str) -> str:
    # A value of the log may hold a line's end, after which the rest would be no comment.
    return f"# {strip_control_characters(text)}"


def key_of(name: str) -> str:
    """Write a key of TOML, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def assignment(key: str, value: str) -> str:
    """Write a line of TOML that gives a key a text."""
    return f"{key_of(key)} = {_toml(value)}"


def _toml(value: Any) -> str:
    # A text in JSON is one in TOML: both escape quotes, backslashes and control characters in the same way.
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
