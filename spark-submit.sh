#!/usr/bin/env bash
# ./spark-submit.sh JOB [options]: sets up what is missing, then runs the job through Spark's own spark-submit.
set -euo pipefail

script=$(readlink -f "${BASH_SOURCE[0]}")
project=$(dirname "$script")
environment="$project/.venv"
# Path of the archive of Spark's classes for this Java (see keep_classes). Empty for a command that needs no Java.
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

# A stamp is a copy of the file that was installed. If both are the same, there is nothing to do.
is_done() { cmp -s "$1" "$environment/$2.stamp"; }

install() {
    echo "spark-submit.sh: installing $(basename "$1") into .venv"
    rm -f "$environment/$(basename "$1").stamp"
    "$environment/bin/python" -m pip install --disable-pip-version-check --progress-bar on --quiet -r "$1" ||
        fail "the packages could not be installed (see above); this needs PyPI once"
    cp "$1" "$environment/$(basename "$1").stamp"
}

# Set SPARK_HOME, by which Spark finds its own files. A value from outside could name another version of Spark.
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
        # This writes the stamp too. It prints its own error, so end with its exit code.
        PYTHONPATH="$project" "$environment/bin/python" -m lambda_spark.cli.jars "$environment" || exit
    fi
    [ -z "$classes" ] || [ -e "$classes" ] || keep_classes
}

# Keep an archive of Spark's classes. Without it a third of a short job is spent on loading and checking the same
# thousands of classes (measured: 12 s with the archive, 19 s without). If this fails, leave an empty file as a sign
# that it was tried. Jobs then start without an archive.
keep_classes() {
    local folder
    echo "spark-submit.sh: keeping Spark's classes ready for this Java (half a minute, once)"
    folder="$environment/classes.new"
    rm -rf "$folder"
    mkdir "$folder"
    # Exit after Ctrl-C, because Java ends normally when it is interrupted, and the shell would then continue.
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

# Set up under a lock, because two first starts may run at the same time. The second one waits for the first.
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
    "" | -h | --help | help | lookup) ;;
    *) check_java ;;
esac
# Send the set-up's messages to the error output, because a job's output may be piped.
set_up_once 1>&2
use_environment
if [ -s "$classes" ] && [[ "${SPARK_SUBMIT_OPTS:-}" != *SharedArchiveFile* ]]; then
    # If the archive does not fit, for instance because of another class path, Java loads the classes as usual. The
    # second option then keeps Java from printing a warning.
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
    # Run two processes, because one Spark session keeps little more than one of two cores busy. With arguments pytest
    # runs in one process.
    # Do not sort files by their number of tests: the files with the fewest tests take longest here. They would come
    # last, and nothing would run beside the last one.
    [ $# -gt 0 ] || set -- -n 2 --dist loadfile --no-loadscope-reorder
    exec "$environment/bin/python" -m pytest "$@"
fi
exec "$environment/bin/python" -m lambda_spark.cli.launch "$@"
