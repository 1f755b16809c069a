"""Tests that the generated parts and links of the READMEs are right, and that the READMEs are short enough."""

import re

import pytest

from tests import documentation
from tests.sessions import PROJECT


def test_the_generated_parts_are_up_to_date():
    outdated = [
        str(file.relative_to(PROJECT)) for file, text in documentation.generated().items() if file.read_text() != text
    ]
    assert outdated == [], "run ./spark-submit.sh docs"


def test_every_kind_of_part_stands_in_a_readme():
    texts = "".join(file.read_text() for file in documentation.readmes())
    assert set(re.findall(r"<!-- generated: (\w+) -->", texts)) == documentation.PARTS.keys()


@pytest.mark.parametrize("file", documentation.readmes(), ids=lambda file: str(file.relative_to(PROJECT)))
def test_every_link_leads_to_a_file_and_a_heading(file):
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", file.read_text()):
        linked = (file.parent / target).resolve() if target else file
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings]


def test_the_readme_is_short():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 220
