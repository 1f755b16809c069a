"""Tests of the proposal: what is sure, what is left to a person, and what a person is warned of."""

import json
import tomllib

import pytest

from lambda_spark.inspection.proposal import inspect
from lambda_spark.report.inspection import inspection_text, next_step

HEADER = "event_time,event_type,product_id,user_id,user_session\n"


def look(folder, text, name="log.csv"):
    file = folder / name
    file.write_text(text)
    found = inspect([file])
    # Whatever is proposed, it has to be TOML, and to be shown.
    tomllib.loads(found.toml())
    assert inspection_text(found)
    return found


def events(number, *, user="{n}", session="s{n}", product="7", time="2019-10-01 10:{minute:02}:00 UTC", kind="view"):
    """Write some lines of a log, numbered from 1."""
    lines = [
        ",".join((time, kind, product, user, session)).format(n=n, minute=n % 60, second=1569888000 + n)
        for n in range(1, number + 1)
    ]
    return "\n".join(lines) + "\n"


def doubts(found):
    return {doubt.key: doubt.candidates for doubt in found.doubts}


# --- What is sure -----------------------------------------------------------------------------------------------------


def test_a_german_export_is_described_but_for_its_event_words(tmp_path):
    (tmp_path / "log.csv").write_bytes(
        "Zeitpunkt;Ereignis;Artikelnummer;Kundennummer;Einzelpreis;Hersteller\r\n"
        "03.10.2023 10:15;view;A-0012;K100;12,99;Müller\r\n"
        "03.10.2023 10:16;cart;A-0012;K100;12,99;Müller\r\n"
        "04.10.2023 11:16;purchase;A-0013;K101;1.299,00;Bäcker\r\n".encode("cp1252")
    )
    found = inspect([tmp_path / "log.csv"])
    assert found.is_sure
    assert tomllib.loads(found.toml())["source"] == {
        "format": "csv",
        "delimiter": ";",
        "encoding": "windows-1252",
        "time_format": "dd.MM.yyyy HH:mm",
        "decimal_comma": True,
        "ids": "text",
        "fields": {
            "event_time": "Zeitpunkt",
            "event_type": "Ereignis",
            "product_id": "Artikelnummer",
            "brand": "Hersteller",
            "price": "Einzelpreis",
            "user_id": "Kundennummer",
        },
    }
    assert found.verdict.events == 3


def test_an_array_of_products_is_exploded(tmp_path):
    orders = [
        {
            "ts": 1700000000000 + n,
            "type": "order",
            "customer": {"id": n},
            "lines": [{"sku": f"S{n}", "price": 2}, {"sku": "T"}],
        }
        for n in range(1, 6)
    ]
    found = look(tmp_path, "\n".join(map(json.dumps, orders)), "log.jsonl")
    assert found.is_sure
    assert (found.description.explode, found.description.time_unit) == ("lines", "milliseconds")
    assert found.description.fields == {
        "event_time": "ts",
        "event_type": "type",
        "product_id": "lines.sku",
        "price": "lines.price",
        "user_id": "customer.id",
    }
    assert (found.verdict.records, found.verdict.events, found.description.event_types) == (
        10,
        10,
        {"order": "purchase"},
    )


def test_names_with_blanks_are_written_in_backticks(tmp_path):
    found = look(tmp_path, "timestamp,event,item id,Customer ID\n1569888000,view,7,1\n1569888001,cart,8,2\n")
    assert (found.is_sure, found.verdict.events) == (True, 2)
    assert (found.description.fields["product_id"], found.description.fields["user_id"]) == (
        "`item id`",
        "`Customer ID`",
    )


def test_names_with_dots_are_one_name_in_a_table_and_a_path_in_json(tmp_path):
    found = look(tmp_path, "timestamp,event,shop.sku,user`id,user_id\n1569888000,view,7,9,1\n1569888001,cart,8,9,2\n")
    assert (found.verdict.events, found.description.fields["product_id"]) == (2, "`shop.sku`")
    record = {"timestamp": 1569888000, "event": "view", "the shop": {"sku": 7}, "user": {"id": 1}}
    found = look(tmp_path, json.dumps(record), "log.json")
    assert (found.verdict.events, found.description.fields["product_id"]) == (1, "`the shop`.sku")


def test_a_log_of_orders_is_one_of_purchases_without_what_came_back(tmp_path):
    text = "order_date,order_number,sku,customer_id,quantity,price\n" + "".join(
        f"2023-01-{n:02},{n},S{n},{n},{-1 if n == 3 else 2},9.90\n" for n in range(1, 11)
    )
    found = look(tmp_path, text)
    assert (found.is_sure, found.verdict.events, found.verdict.ignored) == (True, 9, 1)
    assert found.description.fields["event_type"].startswith(
        "case when try_cast(quantity as double) <= 0 then 'ignore'"
    )
    assert found.description.fields["user_session"] == "order_number"


def test_guests_are_told_by_the_ids_that_mean_nobody(tmp_path):
    lines = [("0", "-1", "guest", str(n))[n % 4] for n in range(1, 41)]
    text = HEADER + "".join(f"2019-10-01 10:{n:02}:00 UTC,purchase,7,{user},s{n}\n" for n, user in enumerate(lines))
    found = look(tmp_path, text)
    assert (found.is_sure, found.description.nobody) == (True, ("-1", "0", "guest"))
    assert (found.description.ids, found.verdict.events) == ("integer", 40)


def test_prices_with_a_currency_are_cleaned(tmp_path):
    found = look(
        tmp_path,
        "event_time,event_type,item_id,user_id,unit_price\n2019-10-01Z,view,7,1,$12.99\n2019-10-02Z,view,8,2,$5\n",
    )
    assert found.description.fields["price"] == "regexp_replace(unit_price, '[^0-9.,-]', '')"
    assert [row["price"] for row in found.verdict.mapped] == ["12.99", "5"]


def test_sessions_without_users_are_events_and_the_one_line_is_shown(tmp_path):
    found = look(tmp_path, "ts,session_id,item_id,action\n1569888000,s1,7,view\n1569888001,s2,8,view\n")
    assert (found.is_sure, found.verdict.events) == (True, 2)
    assert '# in [source.fields]: user_id = "session_id"' in found.toml()


@pytest.mark.parametrize(
    ("product", "ids"),
    [("{n}", "integer"), ("{n}.0", "integer"), ("0{n}", "text"), ("SKU-{n}", "text"), ("0", "text"), ("+{n}", "text")],
)
def test_ids_are_texts_where_one_is_no_whole_number(tmp_path, product, ids):
    assert look(tmp_path, HEADER + events(12, product=product)).description.ids == ids


# --- What is not sure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "candidates"),
    [
        (
            "date,event,sku,customer_id\n01/02/2023,view,S1,1\n03/04/2023,view,S2,2\n",
            "time_format",
            ('time_format = "dd/MM/yyyy"', 'time_format = "MM/dd/yyyy"'),
        ),
        (
            "ts,event,sku,customer_id\n1700000000,view,S1,1\n1700000001000,view,S2,2\n",
            "time_unit",
            ('time_unit = "seconds"', 'time_unit = "milliseconds"'),
        ),
        (
            "ts,event,sku,user_id\n2023-10-01 10:00:00 BST,view,S1,1\n2023-10-01 10:00:01 BST,view,S2,2\n",
            "time_zone",
            ('time_zone = "Europe/London"',),
        ),
        (
            "ts,event,sku,customer_id,visitor_id\n1700000000,view,S1,1,a\n1700000001,view,S2,2,b\n",
            "user_id",
            ('user_id = "customer_id"', 'user_id = "visitor_id"'),
        ),
        (
            "ts,event,item_id,sku,user_id\n1700000000,view,5,S1,1\n1700000001,view,6,S2,2\n",
            "product_id",
            ('product_id = "item_id"', 'product_id = "sku"'),
        ),
        (
            "ts,event,sku,user_id\n1700000000,Kauf,S1,1\n1700000001,view,S2,2\n",
            "Kauf",
            ('Kauf = "purchase"', 'Kauf = "ignore"'),
        ),
        (
            "ts,event,sku,user_id\n1700000000,zap,S1,1\n1700000001,view,S2,2\n",
            "zap",
            ('zap = "view"', 'zap = "cart"', 'zap = "remove_from_cart"', 'zap = "purchase"', 'zap = "ignore"'),
        ),
        (
            "ts,foo,sku,user_id\n1700000000,1,S1,1\n1700000001,2,S2,2\n",
            "event_type",
            ("event_type = \"'view'\"", "event_type = \"'purchase'\""),
        ),
        (
            "ts,event,sku,user_id,anonymous_id\n1700000000,view,S1,,a\n1700000001,view,S2,,b\n1700000002,view,S2,u,b\n",
            "user_id",
            ('user_id = "user_id"', 'user_id = "coalesce(user_id, anonymous_id)"'),
        ),
        (
            'ts,event,sku,user_id,price\n1700000000,view,S1,a,"1,234"\n1700000001,view,S2,b,"2,500"\n',
            "decimal_comma",
            ("decimal_comma = true", "decimal_comma = false"),
        ),
        (
            "date,clock,event,sku,user_id\n2023-01-02,10:15,view,S1,a\n2023-01-03,11:20,view,S2,b\n",
            "event_time",
            (
                'event_time = "date"',
                'event_time = "concat(date, \' \', clock)"   # and time_format = "yyyy-MM-dd HH:mm" above',
            ),
        ),
        (
            "5,7,view,2023-01-01T10:00:00Z\n6,8,cart,2023-01-01T10:00:01Z\n",
            "event_time",
            ('event_time = "column4"',),
        ),
        (
            "anna,kettle,view\nbert,mug,cart\n",
            "header",
            ("header = true", "header = false   # and columns = ['column1', 'column2', 'column3']"),
        ),
        (
            "Export of 2023\nts,event,sku,user_id\n1700000000,view,S1,a\n1700000001,view,S2,b\n",
            "header",
            (),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_what_is_not_sure_is_a_comment_with_its_candidates(tmp_path, text, key, candidates):
    found = look(tmp_path, text)
    assert not found.is_sure
    assert doubts(found)[key] == candidates
    lines = found.toml().splitlines()
    for candidate in candidates:
        assert f"# {candidate}" in lines
    assert "NOT SURE" in next_step(found, "")


def test_a_description_is_complete_once_a_line_of_each_doubt_is_uncommented(tmp_path):
    found = look(
        tmp_path,
        "date,clock,was,sku,item_id,user_id,price\n"
        + "".join(f'0{n}/0{n}/2023,10:15,Kauf,S{n},{n},u{n},"1,23{n}"\n' for n in range(1, 9)),
    )
    text = found.toml()
    for doubt in found.doubts:
        assert f"# {doubt.candidates[0]}\n" in text
        text = text.replace(f"# {doubt.candidates[0]}\n", f"{doubt.candidates[0]}\n")
    source = tomllib.loads(text)["source"]
    assert (source["time_format"], source["decimal_comma"]) == ("dd/MM/yyyy", True)
    assert source["fields"] == {
        "event_time": "date",
        "event_type": "was",
        "product_id": "item_id",
        "user_id": "user_id",
        "price": "price",
    }


def test_ids_that_pandas_wrote_as_floats_are_cleaned_where_ids_are_texts(tmp_path):
    found = look(tmp_path, HEADER + events(12, product="S{n}", user="{n}.0"))
    assert found.description.fields["user_id"] == "regexp_replace(user_id, '[.]0$', '')"
    assert found.verdict.mapped[0]["user_id"] == "1"


def test_a_number_of_pieces_is_no_price_and_a_number_is_no_path(tmp_path):
    found = look(tmp_path, "ts,event,sku,user_id,amount,category\n1700000000,buy,S1,a,2,17\n1700000001,buy,S2,b,1,18\n")
    assert found.description.fields["category_id"] == "category"
    assert not {"price", "category_code"} & set(found.description.fields)


def test_two_arrays_with_products_are_not_sure(tmp_path):
    record = {"ts": 1700000000, "event": "view", "user_id": 1, "seen": [{"sku": "A"}], "bought": [{"sku": "B"}]}
    found = look(tmp_path, json.dumps(record), "log.json")
    assert doubts(found)["explode"] == ('explode = "seen"', 'explode = "bought"')


def test_a_rare_unknown_event_name_is_a_bad_record_and_no_doubt(tmp_path):
    found = look(tmp_path, HEADER + events(400) + events(1, kind="zap"))
    assert (found.is_sure, found.verdict.events) == (True, 400)
    assert found.verdict.rejected == {"event_type is no event type that is known": 1}
    assert found.verdict.examples == {"event_type is no event type that is known": "zap"}


def test_files_of_different_columns_are_not_sure(tmp_path):
    (tmp_path / "one.csv").write_text(HEADER + events(3))
    (tmp_path / "two.csv").write_text(HEADER.replace("user_id", "customer_id") + events(3))
    found = inspect([tmp_path])
    assert not found.is_sure
    assert any("has other columns" in note for note in found.sample.notes)


def test_a_line_break_in_a_value_stays_within_the_comment(tmp_path):
    found = look(tmp_path, 'ts,event,sku,user_id\n1700000000,"a\nb = 1",S1,1\n1700000001,view,S2,2\n')
    assert "b" not in tomllib.loads(found.toml())["source"]["event_types"]


# --- Warnings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (events(20, user="5"), 'one user, "5", has 100% of the records'),
        (events(20, user=""), "100% of the records have no user"),
        (events(20, product="0{n}"), 'product_id: 20 ids begin with a zero or a plus sign, like "01"'),
        (events(20, user="{n}.0"), 'user_id: 20 ids are written as floats, like "1.0"'),
        (events(20, session="s"), '1 of 1 sessions have several users, like "s"'),
        (events(20, time="2019-10-01 10:{minute:02}:00"), "times are without a zone; they are taken as UTC"),
        (events(20, time="2019-10-01"), "times are days without a time of day"),
        (events(20) + events(1), "5% of the records are exact copies of others"),
    ],
)
def test_what_is_unusual_is_warned_of(tmp_path, lines, words):
    usual = look(tmp_path, HEADER + events(20, product="{n}"))
    assert usual.warnings == ()
    found = look(tmp_path, HEADER + lines)
    assert len([warning for warning in found.warnings if words in warning]) == 1


def test_large_numbers_in_json_are_warned_of_and_texts_are_not(tmp_path):
    def log(product):
        row = {"event_time": "2019-10-01T10:00:00Z", "event_type": "view", "product_id": product, "user_id": 1}
        return json.dumps(row)

    [warning] = look(tmp_path, log(2**53 + 1), "log.json").warnings
    assert warning.startswith("product_id: 1 ids are JSON numbers above 2^53, like 9007199254740993")
    assert look(tmp_path, log(2**53), "log.json").warnings == ()
    assert look(tmp_path, log(str(2**53 + 1)), "log.json").warnings == ()


# --- What people see --------------------------------------------------------------------------------------------------


def test_the_report_names_the_format_the_columns_the_events_and_the_rejections(tmp_path):
    text = "ts|action|item_id|visitor\n1569888000|view|7|1\n1569888001|buy||2\nNA|view|8|3\n"
    report = inspection_text(look(tmp_path, text)).splitlines()
    assert 'format csv, delimiter |, quote ", a header, encoding utf-8' in report
    assert "times: numbers of seconds since 1970 fall between 2000 and 2100" in report
    assert any(line.split()[:2] == ["item_id", "67%"] and "product_id" in line for line in report)
    assert "  buy: 1 → purchase" in report
    assert "3 records looked at = 1 events + 0 repeats + 2 rejected + 0 ignored" in report
    assert "  1 rejected: item_id is missing" in report
    assert "  1 rejected: ts is missing" in report


def test_optional_fields_that_make_no_sense_are_counted(tmp_path):
    text = "event_time,event_type,product_id,user_id,price,category_id\n2019-10-01Z,view,7,1,-5,2.05301E+18\n"
    assert look(tmp_path, text).verdict.nulled == {"price": 1, "category_id": 1}
    assert "1 events without price: price makes no sense there" in inspection_text(look(tmp_path, text))


def test_control_characters_of_a_log_do_not_reach_the_terminal(tmp_path):
    report = inspection_text(look(tmp_path, 'ts,event,sku,user_id\n1700000000,"\x1b[2J",S1,1\n1700000001,view,S2,2\n'))
    assert "\x1b" not in report
