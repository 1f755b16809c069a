"""Tests of splitting CSV lines into raw text fields."""

from chispa import assert_df_equality
from pyspark.sql import functions as F

from lambda_spark.event_format import FIELDS
from lambda_spark.ingestion.field_mapping import FieldMapping
from lambda_spark.ingestion.file_formats import FileGroup, Layout, read_group
from lambda_spark.source_description import REES46

ODD = (
    "1,2,3,4,5,6,7,8,9",
    ",,,,,,,,",
    " 1 ,\t2\t, ,4,5,6,7,8, 9",
    r"\1,2\,3,4\\,5,6,7,8,9\ ".rstrip(),
    "'1','2,3',4,5,6,7,8,9",
    "#1,;2,|3,4,5,6,7,8,9",
    "null,NaN,-,4,5,6,7,8,~",
    "ü,日本,😀,\u00a0,\u2028,6,7,8,\u0085",
    "1,2,3,4,5,6,7,8",
    "1,2,3,4,5,6,7,8,9,",
    "1",
    '1,"2",3,4,5,6,7,8,9',
    '1,"2,2",3,4,5,6,7,8,9',
    '1,2,3,4,5,6,7,8,"9',
    '1,2,3,4,5,6,7,"8,9',
    '1,2"2,3,4,5,6,7,8,9',
)


def test_lines_with_and_without_quotes_have_the_fields_that_sparks_csv_parser_finds(spark, tmp_path):
    (tmp_path / "odd.csv").write_text("\n".join(ODD))
    texts = [F.coalesce(name, F.lit("")).alias(name) for name in FIELDS]
    file = FileGroup(Layout("csv", FIELDS), [str(tmp_path / "odd.csv")])
    found = read_group(spark, file, FieldMapping(spark, REES46))
    schema = ", ".join(f"{name} string" for name in (*FIELDS, "corrupt"))
    options = {"columnNameOfCorruptRecord": "corrupt", "escape": '"'}
    event = F.from_csv("value", schema, options).alias("event")
    parsed = spark.read.text(str(tmp_path / "odd.csv")).select("value", event).select("value", "event.*")
    is_fit = F.col("corrupt").isNull()
    assert_df_equality(
        found.where(F.col("flaw").isNull()).select(F.col("raw").alias("value"), *texts),
        parsed.where(is_fit).select("value", *texts),
        ignore_nullable=True,
    )
    flawed = {row.raw: row.flaw for row in found.where(F.col("flaw").isNotNull()).collect()}
    assert flawed.keys() == {row.value for row in parsed.where(~is_fit).collect()}
    assert set(flawed.values()) == {"too few fields", "too many fields", "quotes are not balanced"}
