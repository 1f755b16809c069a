"""A PySpark shell over the lake; Python runs this file and then prompts (see lambda_spark/cli/launch.py)."""

import atexit
import sys
from contextlib import ExitStack

from pyspark.sql import functions as F  # noqa: F401  (for the prompt)

from lambda_spark.cli.arguments import parse
from lambda_spark.errors import LambdaSparkError
from lambda_spark.spark import open_session
from lambda_spark.storage.lake import Lake
from lambda_spark.text import clean

try:
    spark = open_session("shell")
    lake = Lake.open(spark, parse("shell", sys.argv[1:]).lake)
    # For as long as the shell is open: no vacuum takes the views' files away.
    _reading = ExitStack()
    _reading.enter_context(lake.locks.reader())
    atexit.register(_reading.close)
    print(f"\nSpark {spark.version}; views: {', '.join(lake.register_views())}")
    print("Try spark.table('trends').show(), or spark.sql('…').show(). `spark`, `lake` and `F` are here; exit() ends.")
except LambdaSparkError as error:
    sys.stderr.write(f"shell: {clean(str(error))}\n")
    import os

    os._exit(error.exit_code)
