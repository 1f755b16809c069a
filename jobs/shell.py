"""The `shell` job. It opens a PySpark shell with a view for every table of the lake.

`lambda_spark/cli/launch.py` starts Python with the option `-i`. Python runs this file, then shows its prompt.
"""

import atexit
import sys
from contextlib import ExitStack

from pyspark.sql import functions as F  # noqa: F401  (for use at the prompt)

from lambda_spark.cli.arguments import parse
from lambda_spark.errors import LambdaSparkError
from lambda_spark.spark import open_session
from lambda_spark.storage.lake import Lake
from lambda_spark.text import strip_control_characters

try:
    spark = open_session("shell")
    lake = Lake.open(spark, parse("shell", sys.argv[1:]).lake)
    # Hold a reader's lock until the shell ends, so that no other job deletes files that the views read.
    _reader_lock = ExitStack()
    _reader_lock.enter_context(lake.locks.reader())
    atexit.register(_reader_lock.close)
    print(f"\nSpark {spark.version}; views: {', '.join(lake.register_views())}")
    print("Try spark.table('trends').show(), or spark.sql('…').show(). The names `spark`, `lake` and `F` are defined.")
    print("exit() ends the shell.")
except LambdaSparkError as error:
    sys.stderr.write(f"shell: {strip_control_characters(str(error))}\n")
    import os

    os._exit(error.exit_code)
