#!/usr/bin/env bash
# ./spark-submit.sh JOB [options]: sets up what is missing, then runs the job through Spark's own spark-submit.
set -euo pipefail

script=$(readlink -f "${BASH_SOURCE[0]}")
project=$(dirname "$script")
environment="$project/.venv"

fail() {
    echo "spark-submit.sh: $1" >&2
    exit 2
}

check_java() {
    local java=${JAVA_HOME:+$JAVA_HOME/bin/}java version
    local advice="install Java 17 or 21 (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
    command -v "$java" >/dev/null || fail "no Java found; $advice"
    version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    case "$version" in
        17 | 21) ;;
        *) fail "Java ${version:-of unknown version} does not run Spark 4.2; $advice" ;;
    esac
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

# A stamp is a copy of what was installed; where it is the same, nothing is to be done.
is_done() { cmp -s "$1" "$environment/$2.stamp"; }

install() {
    echo "spark-submit.sh: installing $(basename "$1") into .venv"
    "$environment/bin/python" -m pip install --disable-pip-version-check --progress-bar on --quiet -r "$1" ||
        fail "the packages could not be installed (see above); this needs PyPI once"
    cp "$1" "$environment/$(basename "$1").stamp"
}

# Spark finds itself by this; another installation's would be another version.
use_environment() {
    export SPARK_HOME
    SPARK_HOME=$(echo "$environment"/lib/python3.*/site-packages/pyspark)
}

set_up() {
    local python properties="$project/conf/spark-defaults.conf"
    if ! is_done "$project/conf/requirements.txt" requirements.txt; then
        check_java
        python=$(find_python)
        echo "spark-submit.sh: first start: making .venv with $("$python" --version) (a few minutes, once)"
        rm -f "$environment"/*.stamp
        "$python" -m venv --clear "$environment"
        install "$project/conf/requirements.txt"
    fi
    use_environment
    if ! is_done "$properties" spark-defaults.conf; then
        check_java
        echo "spark-submit.sh: fetching the Delta jars named in conf/spark-defaults.conf"
        rm -rf "$environment/ivy"
        echo 'print("spark-submit.sh: ready")' >"$environment/ready.py"
        LAMBDA_SPARK_LOG="$environment/setup.log" "$environment/bin/spark-submit" \
            --properties-file "$properties" --conf "spark.jars.ivy=$environment/ivy" \
            --driver-java-options "\"-Dlog4j2.configurationFile=$project/conf/log4j2.properties\"" \
            "$environment/ready.py" 2>"$environment/setup.err" ||
            { tail -n 20 "$environment/setup.err" >&2; fail "the Delta jars could not be fetched; this needs Maven Central once"; }
        cp "$properties" "$environment/spark-defaults.conf.stamp"
    fi
}

# A finished set-up holds this while another process waits: two first starts at once do not mix.
set_up_once() {
    if is_done "$project/conf/requirements.txt" requirements.txt && is_done "$project/conf/spark-defaults.conf" spark-defaults.conf; then
        return
    fi
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
# The set-up's own words go to the error output: what a job prints may be piped.
set_up_once 1>&2
use_environment
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"

if [ "${1:-}" = benchmark ]; then
    exec "$environment/bin/python" "$project/tests/benchmarks" "${@:2}"
fi
if [ "${1:-}" = test ]; then
    shift
    is_done "$project/conf/requirements-dev.txt" requirements-dev.txt || install "$project/conf/requirements-dev.txt" 1>&2
    cd "$project"
    "$environment/bin/ruff" check .
    "$environment/bin/ruff" format --check .
    "$environment/bin/mypy"
    exec "$environment/bin/python" -m pytest "$@"
fi
exec "$environment/bin/python" -m lambda_spark.launch "$@"
