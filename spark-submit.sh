#!/usr/bin/env bash
# Usage: ./spark-submit.sh JOB [options]. This script installs missing software, then runs the job by Spark's own
# spark-submit.
set -euo pipefail

script=$(readlink -f "${BASH_SOURCE[0]}")
project=$(dirname "$script")
environment="$project/.venv"
# Path of an archive with Spark's loaded classes for the installed Java (see keep_classes). The path is empty for a
# command that needs no Java.
classes=

fail() {
    echo "spark-submit.sh: $1" >&2
    exit 2
}

check_java() {
    local java=${JAVA_HOME:+$JAVA_HOME/bin/}java output version
    local advice="install Java 17 or 21 (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
    command -v "$java" >/dev/null || fail "no Java found; $advice"
    output=$("$java" -version 2>&1) || true
    version=$(sed -n 's/.*version "\([0-9]*\).*/\1/p' <<<"$output" | head -n 1)
    case "$version" in
        17 | 21) ;;
        *) fail "Java ${version:-of unknown version} does not run Spark 4.2; $advice" ;;
    esac
    classes="$environment/classes-$(cksum <<<"$output" | cut -d ' ' -f 1).jsa"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 to 3.13 with venv found; install one (Debian: apt-get install python3.11-venv) or set PYTHON to it"
}

# Succeed if the packages that file $1 lists are installed. The stamp is a copy of the file from the last installation.
# If the file equals its stamp, nothing needs installing.
is_done() { cmp -s "$1" "$environment/$2.stamp"; }

install() {
    echo "spark-submit.sh: installing $(basename "$1") into .venv"
    rm -f "$environment/$(basename "$1").stamp"
    "$environment/bin/python" -m pip install --disable-pip-version-check --progress-bar on --quiet -r "$1" ||
        fail "the packages could not be installed (see above); this needs PyPI once"
    cp "$1" "$environment/$(basename "$1").stamp"
}

# Set SPARK_HOME to the Spark in .venv. The user's own SPARK_HOME could name another version of Spark.
use_environment() {
    export SPARK_HOME
    SPARK_HOME=$(echo "$environment"/lib/python3.*/site-packages/pyspark)
}

set_up() {
    local python
    if ! is_done "$project/conf/requirements.txt" requirements.txt; then
        check_java
        python=$(find_python)
        echo "spark-submit.sh: first start: making .venv with $("$python" --version) (a few minutes, once)"
        rm -f "$environment"/*.stamp
        "$python" -m venv --clear "$environment"
        install "$project/conf/requirements.txt"
    fi
    use_environment
    if ! is_done "$project/conf/spark-defaults.conf" spark-defaults.conf; then
        check_java
        # Fetch the jars and write the stamp. The Python program prints its own errors, so just end with its exit code.
        PYTHONPATH="$project" "$environment/bin/python" -m lambda_spark.cli.jars "$environment" || exit
    fi
    [ -z "$classes" ] || [ -e "$classes" ] || keep_classes
}

# Run a small Spark job and let Java save the loaded classes in an archive. Without the archive, a third of a short job
# goes into loading and checking the same thousands of classes (measured: 12 s with the archive, 19 s without). If Java
# writes no archive, leave an empty file, so that later starts do not try again. Jobs then run without an archive.
keep_classes() {
    local folder
    echo "spark-submit.sh: keeping Spark's classes ready for this Java (half a minute, once)"
    folder="$environment/classes.new"
    rm -rf "$folder"
    mkdir "$folder"
    # Exit on Ctrl-C. Otherwise this script would continue, because an interrupted Java ends as if nothing had happened.
    trap 'rm -rf "$environment/classes.new"; exit 130' INT
    cat >"$folder/usual.py" <<'PYTHON'
import sys

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

spark = SparkSession.builder.getOrCreate()
lake = sys.argv[1]
rows = spark.range(1000).select(F.col("id"), (F.col("id") % 7).alias("key"), F.to_date(F.lit("2019-10-01")).alias("day"))
rows.write.format("delta").partitionBy("day").save(f"{lake}/one")
stream = spark.readStream.format("delta").load(f"{lake}/one").writeStream.trigger(availableNow=True)
append = stream.foreachBatch(lambda batch, _: batch.write.format("delta").mode("append").save(f"{lake}/two"))
append.option("checkpointLocation", f"{lake}/checkpoint").start().awaitTermination()
best = F.row_number().over(Window.partitionBy("key").orderBy(F.desc("count"), "id"))
counts = spark.read.format("delta").load(f"{lake}/two").groupBy("key", "id").count().withColumn("rank", best)
counts.join(F.broadcast(rows), on=["key", "id"], how="left").where("rank < 3").orderBy("key").collect()
PYTHON
    LAMBDA_SPARK_LOG="$environment/setup.log" "$environment/bin/spark-submit" --master "local[2]" \
        --properties-file "$project/conf/spark-defaults.conf" --conf spark.jars.packages= \
        --jars "$(IFS=,; set -- "$environment"/ivy/jars/*.jar; echo "$*")" \
        --driver-java-options "\"-Dlog4j2.configurationFile=$project/conf/log4j2.properties\" \"-XX:ArchiveClassesAtExit=$folder/jsa\"" \
        "$folder/usual.py" "$folder" >"$environment/setup.err" 2>&1 || true
    trap - INT
    if [ -s "$folder/jsa" ]; then mv "$folder/jsa" "$classes"; else : >"$classes"; fi
    rm -rf "$folder"
}

# Install under a lock, because a user may start two jobs at once on a new machine. The second start waits for the
# first.
set_up_once() {
    if is_done "$project/conf/requirements.txt" requirements.txt &&
        is_done "$project/conf/spark-defaults.conf" spark-defaults.conf &&
        { [ -z "$classes" ] || [ -e "$classes" ] || [ ! -w "$environment" ]; }; then
        return
    fi
    [ -w "$project" ] || fail "not set up, and you cannot write to $project: let its owner start './spark-submit.sh help' once"
    mkdir -p "$environment"
    exec 9>"$project/.setup.lock"
    flock 9
    set_up
    exec 9>&-
}

case "${1:-}" in
    "" | -h | --help | help | lookup | inspect) ;;
    *) check_java ;;
esac
# Send the messages of the installation to the error output, because a program may read the job's standard output.
set_up_once 1>&2
use_environment
if [ -s "$classes" ] && [[ "${SPARK_SUBMIT_OPTS:-}" != *SharedArchiveFile* ]]; then
    # Java ignores the archive if it does not fit, for instance because the class path differs. The option
    # -Xlog:cds*=off then keeps Java from printing a warning.
    export SPARK_SUBMIT_OPTS="\"-XX:SharedArchiveFile=$classes\" -Xlog:cds*=off ${SPARK_SUBMIT_OPTS:-}"
fi
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"

case "${1:-}" in
    benchmark | docs | test)
        is_done "$project/conf/requirements-dev.txt" requirements-dev.txt ||
            install "$project/conf/requirements-dev.txt" 1>&2
        ;;
esac
if [ "${1:-}" = benchmark ]; then
    exec "$environment/bin/python" "$project/tests/benchmarks" "${@:2}"
fi
if [ "${1:-}" = docs ]; then
    cd "$project"
    exec "$environment/bin/python" -m tests.documentation "${@:2}"
fi
if [ "${1:-}" = test ]; then
    shift
    cd "$project"
    "$environment/bin/ruff" check .
    "$environment/bin/ruff" format --check .
    "$environment/bin/mypy"
    # Run the tests in two processes, because one Spark session keeps little more than one core busy. If the user passes
    # arguments, pytest runs in one process.
    # Do not start with the files that have the most tests, which is pytest-xdist's default. Here the files with the
    # fewest tests take longest. They would run last, and one process would idle during the very last file.
    [ $# -gt 0 ] || set -- -n 2 --dist loadfile --no-loadscope-reorder
    exec "$environment/bin/python" -m pytest "$@"
fi
exec "$environment/bin/python" -m lambda_spark.cli.launch "$@"
