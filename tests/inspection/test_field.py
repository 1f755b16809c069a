"""Tests on excerpts of real logs, and on inputs after bug reports. They are skipped where the excerpts are missing."""

import pytest

from lambda_spark.inspection.proposal import inspect
from tests.sessions import PROJECT

FIELD = PROJECT.parent / "shared" / "field"

pytestmark = pytest.mark.skipif(not FIELD.exists(), reason="the excerpts are not part of the project")

# Records, events, repeats, rejected, ignored.
ACCOUNTS = {
    "drift-day1.csv": (200, 200, 0, 0, 0),
    "drift-day2.csv": (200, 200, 0, 0, 0),
    "drift-day3.jsonl": (200, 200, 0, 0, 0),
    "excel-german.csv": (20, 19, 1, 0, 0),
    "folders": (6, 6, 0, 0, 0),
    "guests.csv": (60, 60, 0, 0, 0),
    "leading-zeros.csv": (7, 6, 1, 0, 0),
    "no-header.csv": (30, 30, 0, 0, 0),
    "online-retail.csv": (200, 170, 21, 0, 9),
    "optional-fields.csv": (4, 4, 0, 0, 0),
    "orders-only.csv.gz": (1970, 1970, 0, 0, 0),
    "quotes.csv": (6, 6, 0, 0, 0),
    "renamed-categories.csv.gz": (2909, 2909, 0, 0, 0),
    "retailrocket.csv": (9, 9, 0, 0, 0),
    "several-on-a-line.json": (6, 6, 0, 0, 0),
    "taobao.csv": (243, 223, 0, 2, 18),
    "text-ids.jsonl": (4, 4, 0, 0, 0),
    "wrong-clock.csv": (1, 1, 0, 0, 0),
}


def proposal(name):
    """Inspect a file, and return what differs from a log of REES46."""
    return inspect([FIELD / name])


@pytest.mark.parametrize("name", ACCOUNTS)
def test_a_log_is_described_surely_and_its_records_are_accounted_for(name):
    found = proposal(name)
    verdict = found.verdict
    account = (verdict.records, verdict.events, verdict.repeats, verdict.rejected.total(), verdict.ignored)
    assert account == ACCOUNTS[name]
    assert found.is_sure


def test_a_spreadsheet_of_germany_is_found_out():
    found = proposal("excel-german.csv")
    description = found.description
    assert (description.delimiter, description.decimal_comma, found.sample.dialect.has_mark) == (";", True, True)
    assert description.time_format == "dd.MM.yyyy HH:mm"
    assert found.verdict.nulled == {"category_id": 19}


@pytest.mark.parametrize("name", ["retailrocket", "taobao", "online-retail"])
def test_known_logs_are_named(name):
    assert proposal(f"{name}.csv").ready.name == name


def test_ids_and_guests_and_quotes_are_as_expected():
    assert {proposal(name).description.ids for name in ("text-ids.jsonl", "leading-zeros.csv")} == {"text"}
    assert proposal("guests.csv").description.nobody == ("-1", "0")
    brands = [row["brand"] for row in proposal("quotes.csv").verdict.mapped]
    assert {'O"Neill', 'Levi\'s "501"', 'Sony 27" TV, black'} <= set(brands)


def test_logs_of_different_columns_are_not_one_log():
    found = inspect([FIELD / "drift-day1.csv", FIELD / "drift-day2.csv"])
    assert not found.is_sure
    assert "it lacks user_id and adds customer_id" in found.sample.notes[0]
