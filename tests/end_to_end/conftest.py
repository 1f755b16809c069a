"""One run of the demo for all tests that look at it."""

import pytest

from tests.commands import command


@pytest.fixture(scope="package")
def demo(tmp_path_factory):
    """Run the demo from a folder that is not the project's; return the folder of its lake and its output."""
    folder = tmp_path_factory.mktemp("it's my store")
    code, output, errors = command("demo", cwd=folder)
    assert code == 0, output + errors
    return folder, output
