"""Tests that `replay` delivers every line once, in order and at the chosen pace, even after many stops."""

import csv
import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lambda_spark.replay.feed import Day, Feed, Layout, event_seconds
from lambda_spark.replay.play import Pace, main
from lambda_spark.replay.sinks import message
from lambda_spark.synthetic.delivery import SCHEMA
from lambda_spark.synthetic.generate import write_store
from lambda_spark.synthetic.model import StoreSettings
from tests.replay.disturbed import DISTURBED, DisturbedFeed
from tests.sessions import PROJECT

HEADER = ",".join(SCHEMA.names)
REES46 = Layout("csv", tuple(SCHEMA.names))


def line(time, product=1):
    return f"{time} UTC,view,{product},1,a.b,acme,1.00,7,s"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "events"
    write_store(StoreSettings(events=30_000, seed=3, days=21), folder, "csv")
    return folder


def lines_of(folder, pattern="*.csv"):
    """Return the lines of all files in a folder, without header lines, in the order of the file names."""
    return [line for file in sorted(folder.glob(pattern)) for line in file.read_bytes().splitlines()[1:]]


def seconds_of(text):
    return int(datetime.fromisoformat(text + "+00:00").timestamp())


def test_a_feed_may_have_more_dates_than_the_limit_of_open_files(tmp_path):
    days = pd.date_range("2019-01-01", periods=300).strftime("%Y-%m-%d 00:00:00")
    (tmp_path / "in.csv").write_text("\n".join([HEADER, *map(line, days), ""]))
    play = [sys.executable, "-m", "lambda_spark.replay.play", tmp_path / "in.csv", "--to", tmp_path / "out"]
    play = shlex.join(map(str, [*play, "--speed", "1e12", "--position", tmp_path / "position.json"]))
    done = subprocess.run(["bash", "-c", f"ulimit -Sn 256; {play}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(lines_of(tmp_path / "out")) == 300


def test_lines_of_all_formats_are_delivered_unchanged_in_the_order_of_their_times(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    latin = line("2019-10-01 00:00:30").replace("acme", "caf\u00e9").encode("latin-1")
    header, far = f"{HEADER}\n".encode(), line("9999-12-31 00:00:00").encode()
    second_day = f"{line('2019-10-02 00:00:00')}\nbroken\n".encode()
    (source / "a.csv").write_bytes(header + second_day + latin + b"\n" + far)
    with gzip.open(source / "b.csv.gz", "wt") as file:
        file.write("user_id,event_time,event_type,product_id\n7,2019-10-01 00:00:10 UTC,view,3\n")
    objects = [b'{"event_type": "view", "event_time": "2019-10-01T00:00:20Z"}\n', b'{"event_time": 1569888001}\n']
    (source / "c.jsonl").write_bytes(b"".join(objects))
    rows = {"event_time": pa.array([datetime(2019, 10, 1, 0, 0, 40)]), "brand": ['a "b", c'], "user_id": [9]}
    pq.write_table(pa.table(rows), source / "d.parquet")
    assert main([str(source), "--to", str(out), "--rate", "1e9"]) == 0
    # `replay` writes one file for each layout and date. The file's name has the layout and the first line's number.
    delivered = {path.name.split("-", 2)[2]: path.read_bytes() for path in out.glob("replay-*")}
    assert delivered == {
        "000000000000-0.csv": header + latin + b"\n" + far + b"\n",
        "000000000000-1.csv": b"user_id,event_time,event_type,product_id\n7,2019-10-01 00:00:10 UTC,view,3\n",
        "000000000000-2.jsonl": objects[1] + objects[0],
        "000000000000-3.csv": b'event_time,brand,user_id\n"2019-10-01 00:00:40.000000","a ""b"", c","9"\n',
        "000000000006-0.csv": header + second_day,
    }


def test_a_line_without_a_possible_time_has_the_second_minus_1():
    lines = [line("2019-10-01 00:00:00"), line("2019-02-30 11:14:00"), line("9999-12-31 23:59:59"), "x,y", ""]
    assert event_seconds(pa.array([text.encode() for text in lines], pa.large_binary()), REES46).tolist() == [
        seconds_of("2019-10-01 00:00:00"), -1, -1, -1, -1,
    ]  # fmt: skip


def test_a_disturbed_feed_disturbs_shares_of_the_lines_and_the_same_lines_for_the_same_seed(store):
    def played(feed_class, **shares):
        with TemporaryDirectory() as folder:
            feed = feed_class(Path(folder), **shares)
            list(feed.read(sorted(store.glob("*.csv"))))
            days = [zip(day.seconds.tolist(), day.lines.to_pylist(), strict=True) for day in feed.days()]
            return [delivered for day in days for delivered in day]

    plain = played(Feed)
    disturbed = played(DisturbedFeed, repeats=0.1, disorder=0.2, lateness=0.05, seed=1)
    assert disturbed == played(DisturbedFeed, repeats=0.1, disorder=0.2, lateness=0.05, seed=1)
    assert disturbed != played(DisturbedFeed, repeats=0.1, disorder=0.2, lateness=0.05, seed=2)
    assert [second for second, _ in disturbed] == sorted(second for second, _ in disturbed)
    times = Counter(line for _, line in plain)
    again = Counter(line for _, line in disturbed)
    assert set(times) == set(again)
    assert len(disturbed) / len(plain) == pytest.approx(1.1, abs=0.01)
    late = [
        second - seconds_of(line[:19].decode())
        for second, line in disturbed
        if line[:2] == b"20" and line[4:8] != b"-02-"
    ]
    assert np.mean(np.array(late) > 3_600 + 3_600) == pytest.approx(0.05, abs=0.01)
    assert max(late) <= 2 * 86_400 + 60 + 3_600


def test_a_disturbed_replay_is_a_command_that_continues_after_a_kill(store, tmp_path):
    out = tmp_path / "out"
    shares = ["--repeats", "0.1", "--disorder", "0.1", "--lateness", "0.05"]
    arguments = [*DISTURBED["program"], "replay", str(store), "--to", str(out), "--slice", "0.02", *shares, "--rate"]
    environment = {**os.environ, "PYTHONPATH": DISTURBED["PYTHONPATH"]}
    process = subprocess.Popen([*arguments, "10000"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.glob("replay-*"))) < 5:
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = Counter(lines_of(out))
    subprocess.run([*arguments, "1e9"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, check=True)
    played, expected = Counter(lines_of(out)), Counter(lines_of(store))
    assert 0 < before.total() < expected.total()
    assert set(played) == set(expected)
    assert played.total() / expected.total() == pytest.approx(1.1, abs=0.01)


def test_the_pace_is_lines_a_second_or_a_multiple_of_time():
    day = Day(np.array([100, 100, 110, 200]), np.zeros(4, np.int16), pa.array([b""] * 4, pa.large_binary()))
    assert Pace(rate=2).due(day, 0, 0, 1.0, 100) == 2
    assert Pace(rate=2).due(day, 2, 2, 1.4, 100) == 2
    assert Pace(rate=2).due(day, 2, 2, 9.0, 100) == 4
    assert Pace(speed=10).due(day, 0, 0, 0.0, 100) == 2
    assert Pace(speed=10).due(day, 2, 2, 1.0, 100) == 3
    assert Pace(speed=10).due(day, 3, 3, 9.9, 100) == 3
    assert Pace(speed=10).due(day, 3, 3, 10.0, 100) == 4


def test_a_replay_keeps_its_pace(store, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    assert main([str(store), "--to", str(tmp_path / "out"), "--rate", "20000", "--slice", "0.1"]) == 0
    assert clock[0] == pytest.approx(sum(1 for _ in lines_of(store)) / 20_000, abs=0.2)


def test_every_line_comes_once_although_the_replay_is_killed(store, tmp_path):
    out = tmp_path / "out"
    command = [str(PROJECT / "spark-submit.sh"), "replay", str(store), "--to", str(out), "--rate", "60000"]
    kills = 0
    while True:
        process = subprocess.Popen([*command, "--slice", "0.02"], stdout=subprocess.DEVNULL)
        before = len(list(out.glob("replay-*")))
        while process.poll() is None and len(list(out.glob("replay-*"))) < before + 5:
            time.sleep(0.005)
        if process.poll() is None and kills < 3:
            process.send_signal(signal.SIGKILL)
            kills += 1
            process.wait()
        else:
            assert process.wait() == 0
            break
    assert kills == 3
    assert Counter(lines_of(out)) == Counter(lines_of(store))
    assert not list(out.glob("_replay-*"))


def test_a_delivery_that_a_kill_interrupts_is_repeated_with_the_same_bounds(store, tmp_path):
    out = tmp_path / "out"
    assert main([str(store), "--to", str(out), "--rate", "1e9"]) == 0
    whole = lines_of(out)
    first, second = sorted(out.glob("replay-*"))[:2]
    position = json.loads((out / "_replay.json").read_text())
    ends = int(second.name.split("-")[2])
    for file in out.glob("replay-*"):
        # Keep only the first file, as if `replay` had been killed after moving it and before storing its position.
        if file != first:
            file.unlink()
    (out / "_replay.json").write_text(json.dumps({**position, "done": 0, "planned": ends}))
    moved_at = first.stat().st_mtime_ns
    assert main([str(store), "--to", str(out), "--rate", "1e9"]) == 0
    assert lines_of(out) == whole
    assert first.stat().st_mtime_ns == moved_at, "a file that exists is not written again: ingest reads no name twice"


def test_a_replay_of_other_files_is_refused_with_this_position(store, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(store), "--to", str(out), "--rate", "1e9"]) == 0
    assert main([str(store), "--to", str(out), "--rate", "1e9"]) == 0
    assert "were played before" in capsys.readouterr().out
    assert main([str(min(store.glob("*.csv"))), "--to", str(out), "--rate", "1e9"]) == 2
    assert "is the position of another replay" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "1"], "either --to FOLDER or --topic NAME"),
        (["--to", "out", "--topic", "t", "--rate", "1"], "either --to FOLDER or --topic NAME"),
        (["--topic", "t", "--rate", "1"], "--topic needs --bootstrap-servers"),
        (["--to", "out"], "one of the arguments --rate --speed is required"),
        (["--to", "out", "--rate", "-1"], "a number above 0, not '-1'"),
        (["--to", "out", "--rate", "1", "--repeats", "0.1"], "unrecognized arguments: --repeats 0.1"),
    ],
)
def test_wrong_use_is_refused_by_one_line(store, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main([str(store), *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_message_has_the_names_of_rees46_and_its_user_as_key():
    text = '2019-10-01 00:00:00 UTC,view,1,,a.b,"a ""b"", c\u00e9",1.00,7,s'
    value, key = message(text.encode(), REES46)
    [fields] = csv.reader([text])
    assert json.loads(value) == {name: field for name, field in zip(SCHEMA.names, fields, strict=True) if field}
    assert key == b"7"
    for broken in (b"too,few", text.encode("latin-1"), b'2019,"view,1,,a.b,b,1.00,7,s', text.encode() + b",more"):
        assert message(broken, REES46) == (broken, None)
    assert message(b'{"user_id": 12}', Layout("json", ())) == (b'{"user_id": 12}', b"12")
