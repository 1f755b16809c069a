"""A fixture that runs the demo once, for all tests that check the demo's results."""

import pytest

from tests.commands import command


@pytest.fixture(scope="package")
def demo(tmp_path_factory):
    """Run the demo from a folder outside the project, and return the lake's folder and the demo's output."""
    folder = tmp_path_factory.mktemp("it's my store")
    code, output, errors = command("demo", cwd=folder)
    assert code == 0, output + errors
    return folder, output
