"""Tests that the project's packages import each other only as the contracts in pyproject.toml allow."""

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.sessions import PROJECT


def test_each_room_imports_only_rooms_below_it(capsys):
    status = lint_imports(config_filename=str(PROJECT / "pyproject.toml"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
