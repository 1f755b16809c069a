"""A benchmark of the Spark recommenders RePlay and SARplus on this project's work, from a store's Parquet files.

    python spark_peers.py WHO STORE_PARQUET FOLDER RUNS

WHO is replay or sar. This file runs in a Python environment of its own, with the Spark version that both were
made for. It prints one line of JSON for each measured piece of work. Pairs are counted within the last 50 products of
each user, because neither recommender knows sessions.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from measure import cpu_seconds_of, jvm_of, measured, print_peak, print_versions
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

LAST = 50
NEIGHBOURS = 20
LIST = 10

KNN, RULES, SAR = "RePlay ItemKNN", "RePlay AssociationRules", "SARplus"


def open_session(folder: Path) -> SparkSession:
    settings = {
        "spark.driver.memory": "6g",
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",
        # Use a few more partitions than cores, because Spark's default of 200 only adds overhead on two cores.
        "spark.sql.shuffle.partitions": "8",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local[2]").appName("spark peers")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def last_items(spark: SparkSession, store: str) -> DataFrame:
    """Return the most recent distinct products of each user.

    Returns:
        The columns user_idx and item_idx, numbered from 0, timestamp in seconds, and relevance, always 1.
    """
    latest_first = Window.partitionBy("user_id").orderBy(F.desc("timestamp"), "product_id")
    touched = (
        spark.read.parquet(store)
        .where(F.col("event_type").isin("view", "cart", "purchase"))
        .groupBy("user_id", "product_id")
        .agg(F.unix_timestamp(F.max("event_time")).alias("timestamp"))
        .withColumn("nth", F.row_number().over(latest_first))
        .where(F.col("nth") <= LAST)
    )
    numbered = touched
    for name, index in (("user_id", "user_idx"), ("product_id", "item_idx")):
        numbers = touched.select(name).distinct()
        numbers = numbers.withColumn(index, (F.row_number().over(Window.orderBy(name)) - 1).cast("int"))
        numbered = numbered.join(F.broadcast(numbers), on=name, how="inner")
    return numbered.select("user_idx", "item_idx", "timestamp", F.lit(1.0).alias("relevance"))


def keep_only(spark: SparkSession, items: DataFrame) -> None:
    """Clear Spark's cache except for the items. Otherwise the next run would reuse results cached by this run."""
    spark.catalog.clearCache()
    items.cache().count()


def replay(spark: SparkSession, items: DataFrame, runs: int) -> None:
    from replay.data import Dataset, FeatureHint, FeatureInfo, FeatureSchema, FeatureType
    from replay.models import AssociationRulesItemRec, ItemKNN
    from replay.utils.session_handler import State

    State(spark)
    cpu = partial(cpu_seconds_of, "self", jvm_of(spark))
    schema = FeatureSchema(
        [
            FeatureInfo("user_idx", FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
            FeatureInfo("item_idx", FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
            FeatureInfo("relevance", FeatureType.NUMERICAL, FeatureHint.RATING),
            FeatureInfo("timestamp", FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
        ]
    )
    dataset = Dataset(schema, items, check_consistency=False, categorical_encoded=True)

    def lists(model: ItemKNN) -> None:
        model.predict(dataset, k=LIST).write.format("noop").mode("overwrite").save()

    def fit(model: ItemKNN | AssociationRulesItemRec) -> None:
        model.fit(dataset)
        model.similarity.write.format("noop").mode("overwrite").save()

    for _ in range(runs):
        keep_only(spark, items)
        knn = ItemKNN(num_neighbours=NEIGHBOURS)
        measured(KNN, "neighbours", partial(fit, knn), cpu)
        measured(KNN, "recommend", partial(lists, knn), cpu)
        keep_only(spark, items)
        rules = AssociationRulesItemRec("user_idx", min_item_count=1, min_pair_count=1, num_neighbours=NEIGHBOURS)
        measured(RULES, "neighbours", partial(fit, rules), cpu)
    for who in (KNN, RULES):
        print_peak(who, jvm_of(spark))


def sar(spark: SparkSession, items: DataFrame, runs: int) -> None:
    from pysarplus import SARPlus

    cpu = partial(cpu_seconds_of, "self", jvm_of(spark))
    columns = {"col_user": "user_idx", "col_item": "item_idx", "col_rating": "relevance", "col_timestamp": "timestamp"}
    for _ in range(runs):
        keep_only(spark, items)
        model = SARPlus(spark, **columns, similarity_type="jaccard")
        measured(SAR, "neighbours", partial(model.fit, items), cpu)
    print_peak(SAR, jvm_of(spark))


def main(who: str, store: str, folder: Path, runs: int) -> None:
    print_versions(who, [{"replay": "replay-rec", "sar": "pysarplus"}[who]])
    spark = open_session(folder)
    items = last_items(spark, store)
    {"replay": replay, "sar": sar}[who](spark, items, runs)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
