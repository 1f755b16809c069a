"""Tests of the store generator. Pandas and plain Python check separately that stores are as promised."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lambda_spark.synthetic.generate import BROKEN, StoreExistsError, StoreSettings, generate, main, write_store
from lambda_spark.synthetic.model import chunks

DATA = Path(__file__).parents[2] / "data"
COMMITTED = StoreSettings(events=28_000, seed=7)
SMALL = StoreSettings(events=5_000, seed=3, days=24)
COLUMNS = [
    "event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price",
    "user_id", "user_session",
]  # fmt: skip
LINE = re.compile(
    rb"20\d\d-[01]\d-[0-3]\d [0-2]\d:[0-5]\d:[0-5]\d UTC,(?:view|cart|remove_from_cart|purchase),[1-9]\d{6,7},2\d{18},"
    rb"(?:[a-z_]+(?:\.[a-z_]+){1,2})?,[a-z]*,\d+\.\d\d,5\d{8},"
    rb"(?:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})?"
)


def lines_of(folder: Path) -> dict[str, list[bytes]]:
    """Return the lines of each file by the file's name, with the header first."""
    return {path.name: gzip.decompress(path.read_bytes()).splitlines() for path in sorted(folder.glob("*.csv.gz"))}


def is_valid(line: bytes) -> bool:
    """Return whether a line is a valid event. The pattern LINE also matches 30 February and the year 9999."""
    return LINE.fullmatch(line) is not None and line[:10] < b"2020" and not line.startswith(b"2019-02-30")


@pytest.fixture(scope="module")
def files() -> dict[str, list[bytes]]:
    return lines_of(DATA / "store")


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / "planted_truth.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def events(files: dict[str, list[bytes]]) -> pd.DataFrame:
    """The distinct valid events of the generated store in the repository's folder `data/`."""
    valid = {line for lines in files.values() for line in lines[1:] if is_valid(line)}
    frame = pd.DataFrame([line.decode().split(",") for line in sorted(valid)], columns=COLUMNS)
    frame["event_time"] = pd.to_datetime(frame["event_time"].str.removesuffix(" UTC"))
    frame["event_date"] = frame["event_time"].dt.strftime("%Y-%m-%d")
    frame["bucket_start"] = frame["event_time"].dt.to_period("W-SUN").dt.start_time.dt.strftime("%Y-%m-%d")
    return frame.astype({"product_id": int, "user_id": int, "price": float})


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_the_same_settings_give_the_same_bytes(tmp_path: Path, form: Any) -> None:
    for name in ("first", "second"):
        write_store(SMALL, tmp_path / name / "store", form)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in ("first", "second"))
    assert first == second
    assert len(first) == 5  # three weeks and three days, and the planted truth


def test_another_seed_gives_another_store(tmp_path: Path) -> None:
    write_store(SMALL, tmp_path / "first" / "store")
    write_store(replace(SMALL, seed=4), tmp_path / "second" / "store")
    first, second = (set().union(*lines_of(tmp_path / n / "store").values()) for n in ("first", "second"))
    assert first & second == {",".join(COLUMNS).encode()}


def test_the_generator_writes_the_committed_store(tmp_path: Path, files: dict[str, list[bytes]]) -> None:
    # Compare uncompressed lines, because another version of zlib may compress the same lines to other bytes.
    write_store(COMMITTED, tmp_path / "store", "csv.gz")
    assert lines_of(tmp_path / "store") == files
    assert (tmp_path / "planted_truth.json").read_text() == (DATA / "planted_truth.json").read_text()


def test_the_committed_store_is_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*.*")) < 2_000_000


def test_files_look_like_rees46(files: dict[str, list[bytes]], truth: dict[str, Any]) -> None:
    assert list(files) == [f"events-2019-W{week}.csv.gz" for week in range(40, 47)]
    assert {lines[0] for lines in files.values()} == {",".join(COLUMNS).encode()}
    lines = [line for lines in files.values() for line in lines[1:]]
    assert sum(not is_valid(line) for line in lines) == truth["counts"]["broken"]


def test_the_counts_add_up(files: dict[str, list[bytes]], truth: dict[str, Any]) -> None:
    counts = truth["counts"]
    lines = [line for lines in files.values() for line in lines[1:]]
    valid = [line for line in lines if is_valid(line)]
    broken = [line for line in lines if not is_valid(line)]
    late = [
        line
        for name, lines in files.items()
        for line in lines[1:]
        if is_valid(line) and date.fromisoformat(line[:10].decode()) < week_of(name)
    ]
    assert counts == {
        "files": len(files),
        "lines": len(lines),
        "events": len(set(valid)),
        "repeats": len(valid) - len(set(valid)),
        "broken": len(set(broken)),
        "late": len(late),
    }
    assert counts["lines"] == counts["events"] + counts["repeats"] + counts["broken"]
    assert counts["events"] == COMMITTED.events


def week_of(name: str) -> date:
    year, week = re.findall(r"\d+", name)[:2]
    return date.fromisocalendar(int(year), int(week), 1)


def test_a_repeat_comes_in_the_same_file_or_in_a_later_one(files: dict[str, list[bytes]]) -> None:
    names_by_line = defaultdict(list)
    for name, lines in files.items():
        for line in filter(is_valid, lines[1:]):
            names_by_line[line].append(name)
    repeated = [names for names in names_by_line.values() if len(names) > 1]
    assert any(len(set(names)) == 1 for names in repeated)
    assert any(len(set(names)) == 2 for names in repeated)


def test_late_repeated_and_broken_lines_are_as_frequent_as_the_settings_say(tmp_path: Path) -> None:
    settings = StoreSettings(events=60_000, seed=1, late_share=0.02, repeat_share=0.03, broken_share=0.005)
    summary = write_store(settings, tmp_path / "store", "csv")
    # A late event arrives 7 to 10 days after its day. So only events of the first 35 to 38 of 45 days can be late.
    late_repeats = 0.03 / 2
    assert summary.late == pytest.approx(60_000 * (0.02 + late_repeats) * 36.5 / 45, rel=0.1)
    assert summary.repeats == pytest.approx(60_000 * 0.03 * 0.98, rel=0.1)
    assert summary.broken == 300
    broken = [line for path in (tmp_path / "store").iterdir() for line in path.read_bytes().splitlines()[1:]]
    assert len({line for line in broken if not is_valid(line)}) == 300


def test_each_way_to_break_a_line_makes_it_invalid() -> None:
    line = (
        b"2019-10-01 08:00:00 UTC,cart,1004856,2053013555631882655,electronics.smartphone,beltano,130.76,520000001,"
        b"3f0ad0d2-09dc-4f0f-8a7e-000000000001"
    )
    assert is_valid(line)
    assert [name for name, way in BROKEN.items() if is_valid(way(line.split(b",")))] == []


def test_parquet_holds_the_same_events_typed(tmp_path: Path) -> None:
    write_store(SMALL, tmp_path / "csv" / "store", "csv.gz")
    write_store(SMALL, tmp_path / "parquet" / "store", "parquet")
    tables = [pq.read_table(path) for path in sorted((tmp_path / "parquet" / "store").iterdir())]
    assert [str(field.type) for field in tables[0].schema] == [
        "timestamp[us, tz=UTC]", "string", "int64", "int64", "string", "string", "double", "int64", "string",
    ]  # fmt: skip
    typed = [
        f"{row['event_time']:%Y-%m-%d %H:%M:%S} UTC,{row['event_type']},{row['product_id']},{row['category_id']},"
        f"{row['category_code'] or ''},{row['brand'] or ''},{row['price']:.2f},{row['user_id']},"
        f"{row['user_session'] or ''}".encode()
        for table in tables
        for row in table.to_pylist()
    ]
    read = [line for lines in lines_of(tmp_path / "csv" / "store").values() for line in lines[1:] if is_valid(line)]
    assert typed == read


def test_a_folder_with_files_is_refused_unless_forced(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "mine.csv").write_text("kept")
    with pytest.raises(StoreExistsError, match="not empty"):
        write_store(SMALL, folder)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["mine.csv"]
    write_store(SMALL, folder, force=True)
    assert (folder / "mine.csv").read_text() == "kept"
    assert len(list(folder.iterdir())) == 5


def test_the_planted_truth_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "planted_truth.json").write_text("{}")
    with pytest.raises(StoreExistsError, match="--planted-truth"):
        write_store(SMALL, tmp_path / "store")
    write_store(SMALL, tmp_path / "store", plants_file=tmp_path / "others.json")
    assert (tmp_path / "planted_truth.json").read_text() == "{}"


def test_the_old_option_is_refused_by_one_line_that_names_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "store"), "--plants", str(tmp_path / "plants.json")]) == 2
    assert capsys.readouterr().err == "error: --plants is now called --planted-truth: write that name\n"
    assert list(tmp_path.iterdir()) == []


def test_the_planted_truth_goes_to_the_named_file(tmp_path: Path) -> None:
    named = tmp_path / "truth.json"
    assert (
        main(["--events", "5e3", "--days", "24", "--out", str(tmp_path / "store"), "--planted-truth", str(named)]) == 0
    )
    assert json.loads(named.read_text())["settings"]["events"] == 5_000
    assert not (tmp_path / "planted_truth.json").exists()


def test_the_command_prints_the_counts_of_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--events", "5e3", "--days", "24", "--format", "csv", "--out", str(tmp_path / "store")]
    assert main(arguments) == 0
    assert re.search(r"5,000 events, .* events a second\n$", capsys.readouterr().out)
    assert main(arguments) == 2
    assert "error: " in capsys.readouterr().err


# --- The model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("events", 999, "events must be at least 1000"),
        ("events", 5e6, "events must be a whole number"),
        ("days", 20, "days must be at least 21"),
        ("days", 1001, "days must be at most 1000"),
        ("events", 1000, "at least five a day"),
        ("seed", -1, "seed must be at least 0"),
        ("start", date(2019, 10, 1), "must be a Monday, not Tuesday"),
        ("users", 6000, "at most a fifth of events"),
        ("products", 10_000, "at most a quarter of events"),
        ("products", 199, "products must be at least 200"),
        ("late_share", 0.5, "late_share must lie between"),
        ("broken_share", -0.1, "broken_share must lie between"),
        ("weekly_growth", 1.0, "weekly_growth must lie between"),
        ("sale_day", 250, "sale_day must be one of the 250 days"),
    ],
)
def test_impossible_settings_are_refused(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(replace(COMMITTED, days=250), **{setting: value})


@pytest.mark.parametrize("settings", [StoreSettings(events=1000, days=21), StoreSettings(events=1000, days=200)])
def test_the_smallest_stores_have_all_their_events(settings: StoreSettings) -> None:
    assert len(pd.concat([table.to_pandas() for table in generate(settings)]).drop_duplicates()) == 1000


def test_a_busy_day_is_made_in_several_chunks() -> None:
    settings = StoreSettings(events=30_000_000, days=21)
    plan = chunks(settings)
    assert sum(chunk.events for chunk in plan) == 30_000_000
    assert max(chunk.events for chunk in plan) <= 400_000
    assert {chunk.day for chunk in plan} == set(range(21))
    assert plan[-1].one_offs[1] == settings.user_count


def test_a_sale_day_has_three_times_the_traffic() -> None:
    usual, sale = (chunks(replace(SMALL, sale_day=day)) for day in (None, 10))
    share = [plan[10].events / plan[9].events for plan in (usual, sale)]
    assert share[1] == pytest.approx(3 * share[0], rel=0.03)
    assert sum(chunk.events for chunk in sale) == SMALL.events


def test_all_chunks_of_a_day_have_events_of_that_day_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lambda_spark.synthetic.model.CHUNK_EVENTS", 200)
    settings = replace(SMALL, events=20_000, late_share=0.0, repeat_share=0.0)
    for chunk, table in zip(chunks(settings), generate(settings), strict=True):
        assert set(table["event_time"].to_pandas().dt.date) == {settings.day(chunk.day)}


def test_the_store_is_lifelike(events: pd.DataFrame) -> None:
    kinds = events["event_type"].value_counts(normalize=True)
    assert kinds["view"] > 0.9 > 0.05 > kinds["cart"] > kinds["purchase"] > 0.01
    assert 0.2 < (events["category_code"] == "").mean() < 0.45
    assert 0.03 < (events["brand"] == "").mean() < 0.3

    session = events[events["user_session"] != ""].groupby("user_session")
    assert 2 <= session.size().median() <= 3 < 15 < session.size().quantile(0.99)
    assert (session["category_id"].nunique() == 1).mean() > 0.8
    assert (session["user_id"].nunique() == 1).all()

    weeks_by_user = events.groupby("user_id")["bucket_start"].nunique()
    assert (weeks_by_user == 1).mean() > 0.4
    assert (weeks_by_user >= 5).mean() > 0.1

    by_product = events["product_id"].value_counts()
    assert by_product.head(len(by_product) // 10).sum() > 0.35 * len(events)
    by_hour = events["event_time"].dt.hour.value_counts()
    assert by_hour[16] > 5 * by_hour[0]
    by_week = events["bucket_start"].value_counts().sort_index()
    assert by_week.index[0] == "2019-09-30"
    assert len(by_week) == 7
    assert by_week.iloc[5] > by_week.iloc[0] > by_week.iloc[6]


# --- The planted truth ------------------------------------------------------------------------------------------------


def z_score(current: int, previous: int, total_current: int, total_previous: int) -> float:
    """Compute the z-score of a key's change in share: the change divided by its standard deviation by chance."""
    n, p = current + previous, total_current / (total_current + total_previous)
    return (current - n * p) / float(np.sqrt(n * p * (1 - p)))


@pytest.mark.parametrize(
    ("section", "key"), [("products", "product_id"), ("categories", "category_code"), ("brands", "brand")]
)
def test_planted_trends_are_found(events: pd.DataFrame, truth: dict[str, Any], section: str, key: str) -> None:
    views = events[events["event_type"] == "view"]
    demand = views.groupby(["bucket_start", key]).size()
    totals = views.groupby("bucket_start").size()
    found = []
    for trend in truth[section]:
        bucket, before = trend["bucket_start"], str(pd.Timestamp(trend["bucket_start"]) - pd.Timedelta("7D"))[:10]
        current, previous = (int(demand.get((start, trend[key]), 0)) for start in (bucket, before))
        z = z_score(current, previous, totals[bucket], totals[before])
        is_clear = abs(current - previous) >= 10 and abs(z) >= 3
        found.append((trend[key], "steady" if not is_clear else "rising" if z > 0 else "waning"))
    assert found == [(trend[key], trend["direction"]) for trend in truth[section]]


def test_trends_are_planted_in_the_last_complete_week_and_before(truth: dict[str, Any]) -> None:
    assert truth["last_complete_bucket"] == "2019-11-04"
    for section in ("products", "categories"):
        starts = Counter(trend["bucket_start"] for trend in truth[section])
        assert starts["2019-11-04"] >= 2
        assert set(starts) > {"2019-11-04"}
    assert {trend["what"] for trend in truth["products"]} == {"rising", "waning", "new", "vanished"}


def neighbours(events: pd.DataFrame, basket: list[str]) -> dict[int, list[int]]:
    """List each product's neighbours, closest first.

    A pair's closeness is the sum of 1/steps over the baskets in which both products are at most five steps apart.
    """
    strength: dict[int, Counter[int]] = defaultdict(Counter)
    first = events.groupby([*basket, "product_id"])["event_time"].min().reset_index()
    for _, items in first.sort_values(["event_time", "product_id"]).groupby(basket)["product_id"]:
        ordered = items.tolist()
        for place, a in enumerate(ordered):
            for steps, b in enumerate(ordered[place + 1 : place + 6], start=1):
                strength[a][b] += 60 // steps
                strength[b][a] += 60 // steps
    # Confidence also divides by the product's own count. This test does not, because the order of neighbours stays
    # the same.
    return {a: sorted(of_a, key=lambda b: (-of_a[b], b)) for a, of_a in strength.items()}


def test_planted_pairs_are_each_others_neighbours(events: pd.DataFrame, truth: dict[str, Any]) -> None:
    signals = events[events["event_type"] != "remove_from_cart"]
    found = {
        "viewed": neighbours(signals, ["event_date", "user_id", "user_session"]),
        "bought": neighbours(signals[signals["event_type"] == "purchase"], ["event_date", "user_id"]),
    }
    assert Counter(pair["relation"] for pair in truth["pairs"]) == {"viewed": 11, "bought": 5}
    for pair in truth["pairs"]:
        a, b, near = pair["product_a"], pair["product_b"], found[pair["relation"]]
        assert b in near[a][:3], pair
        assert a in near[b][:3], pair


def test_no_product_takes_part_in_two_planted_trends_or_pairs(truth: dict[str, Any]) -> None:
    changing = [trend["product_id"] for trend in truth["products"]]
    paired = [
        pair[key] for pair in truth["pairs"] if pair["relation"] == "viewed" for key in ("product_a", "product_b")
    ]
    assert len({*changing, *paired}) == len(changing) + len(paired)
