"""Test helpers that make up events, ingest these events into a lake, and read the lake's tables."""

import random
from datetime import datetime, timedelta

from lambda_spark.batch.refresh import update_trends
from lambda_spark.ingestion.ingest import ingest
from lambda_spark.operations.verify import verify
from lambda_spark.serving.refresh import update_recommendations
from lambda_spark.settings import IngestSettings, TrendSettings
from lambda_spark.source_description import SourceDescription
from lambda_spark.speed.update import update_similarity

HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
TRENDS = TrendSettings(min_change=2, min_z=0.5)
"""Settings with thresholds so low that even the few made-up events show trends."""


def quiet(_):
    pass


def event(moment, kind, product, user, session):
    number = product if isinstance(product, int) else len(product)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC,{kind},{product},1,c.{number % 3},b,1.00,{user},{session}"


def random_events(seed, count):
    """Make up random events with sessions across midnight, two users in one session, repeats, and gaps of weeks."""
    dice = random.Random(seed)
    start = datetime(2019, 10, 1)
    kinds = ["view"] * 6 + ["cart", "purchase", "remove_from_cart"]
    lines = [
        event(
            start + timedelta(days=dice.choice((0, 1, 8, 20)), seconds=dice.randrange(86_000, 87_000)),
            dice.choice(kinds),
            dice.randint(1, 12),
            dice.randint(1, 4),
            dice.choice(("s", "t", "")),
        )
        for _ in range(count)
    ]
    return lines + dice.choices(lines, k=count // 5)


def text_product(number):
    """Return a product id that is a text, in the style of several stores. Texts and numbers have different orders."""
    return (f"{number:010}", f"{number}A", f"gid://shopify/Product/{number}")[number % 3]


def text_user(number):
    return f"u-{number}"


def with_ids(ids, lines):
    """Return events' lines with product and user ids of a kind, in place of whole numbers."""

    def texts(line):
        fields = line.split(",")
        fields[2], fields[7] = text_product(int(fields[2])), text_user(int(fields[7]))
        return ",".join(fields)

    return [texts(line) for line in lines] if ids == "text" else list(lines)


def deliver(lake, inbox, name, lines, *, ids=None):
    """Ingest lines as a new file. If `ids` is None, the ids are of the lake's kind, in a new lake whole numbers."""
    inbox.mkdir(exist_ok=True)
    (inbox / f"{name}.csv").write_text("\n".join([HEADER, *lines, ""]))
    return ingest(lake, [str(inbox)], IngestSettings(), SourceDescription(ids=ids or lake.ids))


def bring_up_to_date(lake, settings):
    update_similarity(lake, settings.similarity)
    update_trends(lake, settings.trends)
    update_recommendations(lake, settings.recommendations)


def contents(lake, table, *without):
    names = [name for name in table.column_names if name not in without]
    return sorted(map(repr, lake[table].read().select(*names).collect()))


def differing(lake, *tables):
    """List the tables whose rows differ from a recomputation, among the given tables or among all."""
    return [finding.table for finding in verify(lake, tables) if finding.differs]
