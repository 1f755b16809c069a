"""The result as text for a person: which products rise or wane, and what one user is recommended and why."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lambda_spark.ids import Id
from lambda_spark.serving.inputs import Views, bucket_words, newest_buckets, pin_views
from lambda_spark.serving.one_user import for_user
from lambda_spark.serving.refresh import is_up_to_date
from lambda_spark.settings import RecommendationSettings, Settings, TrendSettings, recorded
from lambda_spark.storage.lake import Lake
from lambda_spark.storage.tables import CATEGORY_TRENDS, RECOMMENDATIONS, USER_TRENDS
from lambda_spark.text import strip_control_characters, table

_TOP = 5
"""Maximum number of rows in a printed table."""
_FIGURES = {"growth": "+.3f", "trend_pct": ".1f", "change_pct": "+.0f", "z": "+.1f", "score": ".4f", "price": ".2f"}


def result(lake: Lake, settings: Settings, user_id: Id | None) -> str:
    """Format the whole result: the trends, and one user's products and recommendations.

    Args:
        lake: The lake.
        settings: The present settings.
        user_id: The user, or None for the user with the most distinct products.

    Raises:
        LakeError: A table that serving reads is missing.
    """
    views = pin_views(lake)
    parts = [_trend_part(views.trends, _same_bucket(lake[CATEGORY_TRENDS].read(), views), settings.trends, views.when)]
    if user_id is None:
        user_id = _richest_user(views.events)
    if user_id is not None:
        parts.append(_user_part(lake, views, settings, user_id))
    return "\n\n".join(parts)


def user_result(lake: Lake, settings: Settings, user_id: Id) -> str:
    """Format what one user is recommended and why, from the newest version of the tables.

    Raises:
        LakeError: A table that serving reads is missing.
    """
    return _user_part(lake, pin_views(lake), settings, user_id)


def trend_result(trends: DataFrame, category_trends: DataFrame, settings: TrendSettings) -> str:
    """Format the trends of the newest complete time bucket, or of the newest bucket if no bucket is complete.

    Args:
        trends: Rows of `trends`.
        category_trends: Rows of `category_trends`.
        settings: What counts as a trend.
    """
    start, _ = newest_buckets(trends)
    in_bucket = F.col("bucket_start") == F.lit(start)
    when = bucket_words(start, recorded(settings)["bucket"]) if start else ""
    return _trend_part(trends.where(in_bucket), category_trends.where(in_bucket), settings, when)


def recommendation_table(rows: Sequence[Row]) -> str:
    """Format a user's list as a table."""
    shown = ("rank", "product_id", "category_code", "brand", "price", "score", "reason")
    return table([{name: row[name] for name in shown} for row in rows], _FIGURES)


def _trend_part(trends: DataFrame, category_trends: DataFrame, settings: TrendSettings, when: str) -> str:
    is_view = F.col("signal") == "view"
    count, previous, current = trends.agg(
        F.count("*"), F.sum(F.when(is_view, F.col("previous"))), F.sum(F.when(is_view, F.col("current")))
    ).collect()[0]
    if count == 0:
        return "No trends: there are not yet two buckets to compare (trends.bucket sets their length)."
    parts = [
        f"Views {when}, against the bucket before: the store had {previous or 0:,}, then {current or 0:,}.\n"
        "Rising products and categories gained a share of these views by more than chance; waning ones lost a share."
    ]
    for title, kind, key in (("products", trends, "product_id"), ("categories", category_trends, "category_code")):
        strongest = kind.where(is_view & (F.col("rank") <= _TOP)).orderBy("direction", "rank").collect()
        for direction in ("rising", "waning"):
            top = [row for row in strongest if row.direction == direction]
            parts.append(f"\nTop {direction} {title}")
            parts.append(_trend_table(top, key) if top else _no_trend(direction, title, settings))
    return "\n".join(parts)


def _trend_table(rows: Sequence[Row], key: str) -> str:
    names = [key] if key == "category_code" else [key, "category_code", "brand"]
    figures = ("growth", "trend_pct", "previous", "current", "change_pct")
    return table(
        [{**{n: row[n] for n in names}, **{n: row[n] for n in figures}, "z": row.z_score} for row in rows], _FIGURES
    )


def _no_trend(direction: str, title: str, settings: TrendSettings) -> str:
    return (
        f"none: no {title} are {direction} by at least {settings.min_change} views (trends.min_change) and "
        f"{settings.min_z:g} standard deviations (trends.min_z) within the false discovery rate (trends.max_fdr)"
    )


def _user_part(lake: Lake, views: Views, settings: Settings, user_id: Id) -> str:
    touched = views.events.where((F.col("user_id") == user_id) & (F.col("event_type") != "remove_from_cart"))
    recent = (
        touched.groupBy("product_id")
        .agg(F.max("event_time").alias("last_seen"), F.max_by("event_type", "event_time").alias("last_event"))
        .orderBy(F.desc("last_seen"), "product_id")
        .limit(_TOP)
        .join(views.products.select("product_id", "category_code", "brand", "price"), on="product_id", how="left")
        .orderBy(F.desc("last_seen"), "product_id")
        .collect()
    )
    recommended = _list_of(lake, views, settings.recommendations, user_id)
    name = strip_control_characters(f"User {user_id}")
    if not recent:
        parts = [f"{name} was never seen: these are the products most in demand in the store."]
        return "\n".join([*parts, *_recommendations(recommended)])
    parts = [name, "\nRecently viewed", table([row.asDict() for row in recent], _FIGURES)]
    similar = _similar(views, [row.product_id for row in recent])
    parts.append("\nSimilar products")
    parts.append(
        table([row.asDict() for row in similar[:_TOP]], _FIGURES)
        if similar
        else "none: no other product was seen in the same sessions (similarity.window, similarity.min_baskets)"
    )
    parts.append(_own_share(lake, views, user_id))
    parts.extend(_highlights(views, similar))
    return "\n".join([*parts, *_recommendations(recommended)])


def _list_of(lake: Lake, views: Views, settings: RecommendationSettings, user_id: Id) -> list[Row]:
    """Return the user's list from `recommendations` if this table is up to date. Otherwise compute the list now."""
    if is_up_to_date(lake, settings):
        written = lake[RECOMMENDATIONS].read().where(F.col("user_id") == user_id).orderBy("rank").collect()
        if written:
            return written
    return for_user(views, settings, user_id)


def _similar(views: Views, product_ids: list[Id]) -> list[Row]:
    return (
        views.similar_items.where((F.col("relation") == "viewed") & F.col("product_id").isin(product_ids))
        .select(F.col("product_id").alias("to_product"), "similar_product_id", "score", "baskets")
        .orderBy(F.desc("score"), "to_product", "similar_product_id")
        .limit(_TOP)
        .collect()
    )


def _own_share(lake: Lake, views: Views, user_id: Id) -> str:
    own = _same_bucket(lake[USER_TRENDS].read(), views).where(F.col("user_id") == user_id).collect()
    if not own:
        return f"\nThis user had no interactions {views.when}."
    return (
        f"\nOf this user's {own[0].interactions} interactions {views.when}, {own[0].rising_pct:.0f} % were with rising "
        f"and {own[0].waning_pct:.0f} % with waning products."
    )


def _highlights(views: Views, similar: list[Row]) -> list[str]:
    lines = []
    top = (
        views.trends.where(F.col("signal") == "view")
        .orderBy(F.desc_nulls_last("trend_pct"), "product_id")
        .limit(1)
        .collect()
    )
    if top and top[0].trend_pct is not None:
        trend = top[0]
        product_id = strip_control_characters(str(trend.product_id))
        named = strip_control_characters(f"{trend.category_code or 'no category'}, {trend.brand or 'no brand'}")
        lines.append(
            f"Highest trend percentage: product {product_id} ({named}), {trend.trend_pct:.1f} % of all "
            f"{trend.direction} change: {trend.previous} → {trend.current} views"
        )
    if similar:
        best = similar[0]
        lines.append(
            strip_control_characters(f"Most similar product: {best.similar_product_id}, to {best.to_product} ")
            + f"(score {best.score:.4f}, together in {best.baskets} sessions)"
        )
    return lines


def _recommendations(rows: list[Row]) -> list[str]:
    if not rows:
        return [
            "\nRecommended: nothing. Every product is left out by recommendations.filter, allow_products, "
            "deny_products or max_per_category, or the user has bought it."
        ]
    return ["\nRecommended", recommendation_table(rows)]


def _same_bucket(rows: DataFrame, views: Views) -> DataFrame:
    return rows.where(F.col("bucket_start") == views.bucket)


def _richest_user(events: DataFrame) -> Id | None:
    rows = (
        events.where(F.col("event_type") != "remove_from_cart")
        .where(F.col("user_id").isNotNull())
        .groupBy("user_id")
        .agg(F.count_distinct("product_id").alias("products"))
        .orderBy(F.desc("products"), "user_id")
        .limit(1)
        .collect()
    )
    return rows[0].user_id if rows else None
