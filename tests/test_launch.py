"""What a job is started with."""

import os
import zipfile

from lambda_spark import launch


def test_a_job_gets_the_code_that_lies_there_however_old_its_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "PROJECT", tmp_path)
    module, environment = tmp_path / "lambda_spark" / "batch" / "trends.py", tmp_path / ".venv"
    module.parent.mkdir(parents=True)
    environment.mkdir()
    module.write_text("release = 1\n")
    launch.package(environment)

    # As from an archive of a release that was made before the first start of the one here.
    module.write_text("release = 2\n")
    for path in (module, module.parent, module.parent.parent):
        os.utime(path, (0, 0))
    with zipfile.ZipFile(launch.package(environment)) as package:
        assert package.read("lambda_spark/batch/trends.py") == b"release = 2\n"


def test_the_code_that_a_running_job_has_open_is_not_written_again_while_it_is_the_same(tmp_path):
    first = launch.package(tmp_path).stat()
    assert launch.package(tmp_path).stat().st_ino == first.st_ino
