"""Declares all tables of the lake in one place, with their names, columns and comments.

Jobs write the comments into the Delta tables, where `describe table` shows them to analysts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lambda_spark.ids import ID_TYPES, Ids

ID = "id"
"""Type of the columns that hold product or user ids: `bigint` or `string`, by the kind of the lake's ids."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    type: str
    """Spark SQL type, or ID."""
    comment: str
    """Meaning of the column, with its unit, its range and the meaning of null."""
    comment_for_text: str = ""
    """The comment in a lake whose ids are texts. If empty, it is `comment`."""

    def resolved(self, ids: Ids) -> Column:
        """Return the column with the Spark SQL type and the comment that it has in a lake with ids of this kind."""
        comment = (ids == "text" and self.comment_for_text) or self.comment
        return replace(self, type=ID_TYPES[ids] if self.type == ID else self.type, comment=comment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A Delta table of the lake."""

    name: str
    job: str
    """The job that writes the table."""
    comment: str
    """Meaning of a row."""
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    """Columns whose minimum and maximum Delta keeps per file.

    Name few columns, because each costs time at every commit. Name no column about users, because the values would stay
    in the log after the user's rows are deleted.
    """
    properties: dict[str, str] = field(default_factory=dict)
    """Delta's own table properties."""
    former_name: str = ""
    """Name of the table in version 0.1; empty where the name has not changed."""
    settings_section: str = ""
    """Section of the settings that are recorded as the table's properties; empty where none are recorded."""

    @property
    def column_names(self) -> list[str]:
        """The names of all columns, in order."""
        return [column.name for column in self.columns]

    def columns_for(self, ids: Ids) -> tuple[Column, ...]:
        """Return the columns with the types and comments that they have in a lake with ids of this kind."""
        return tuple(column.resolved(ids) for column in self.columns)


STEADY = "steady"
"""Value of the column `direction` where demand neither rises nor wanes."""

_PRODUCT_ID = Column("product_id", ID, "Product id, above 0.", "Product id as delivered, never empty.")
_USER_ID = Column("user_id", ID, "User id, above 0.", "User id as delivered, never empty.")
_GUEST = "Null: a guest, known only by the session."
_USER_OR_GUEST = Column("user_id", ID, f"User id, above 0. {_GUEST}", f"User id as delivered, never empty. {_GUEST}")
_VISITOR = Column("user_id", ID, "User id; 0 for a guest.", "User id as delivered; empty for a guest.")
_BUCKET = Column("bucket_start", "timestamp", "First moment of the bucket (UTC).")
_SIGNAL = Column("signal", "string", "Event type that is counted: view, cart or purchase.")
_DATE = Column("event_date", "date", "UTC date of the events.")
_RELATION = Column(
    "relation",
    "string",
    "viewed: products of any interaction in one session. bought: products that one user purchased on one date.",
)
_INGEST_BATCH = Column(
    "ingest_batch", "string", "Application id and number of the micro-batch that wrote the row, like ID:17."
)
_BATCH_ID = Column("batch_id", "bigint", "Number of the micro-batch that wrote the row, from 0.")

_TREND_FIGURES = (
    Column("current", "bigint", "Number of events in this bucket, at least 0."),
    Column("previous", "bigint", "Number of events in the bucket before, at least 0."),
    Column("change", "bigint", "current - previous, in events."),
    Column("growth", "double", "Damped relative change, in (-1, 1): (current - previous) / (current + previous + 1)."),
    Column(
        "z_score",
        "double",
        "Change of the share of all demand, in standard deviations of independent events. Above 0: the share rose. "
        "0 if one of the two buckets has no demand at all.",
    ),
    Column(
        "overdispersion",
        "double",
        "Factor by which counts vary more than independent events would, at least 1. It is estimated from all tested "
        "rows of the bucket and signal. Null: too few events to test.",
    ),
    Column(
        "p_value",
        "double",
        "Probability that chance alone changes the share at least as much in the same direction, in [0, 0.5]. "
        "Null: too few events to test.",
    ),
    Column(
        "q_value",
        "double",
        "False discovery rate, in [0, 1]. It is the expected share of chance changes among the bucket's and signal's "
        "rows that moved in the same direction with at most this p_value. Null: too few events to test.",
    ),
    Column(
        "trend_pct",
        "double",
        "This row's percentage of the sum of |change| over all rows of the bucket, signal and direction, in [0, 100]. "
        "Null: steady.",
    ),
    Column("change_pct", "double", "100 * change / previous, in percent, at least -100. Null: previous is 0."),
    Column("direction", "string", "rising or waning for a trend, else steady. The sign of z_score decides which."),
    Column(
        "rank",
        "int",
        "Position among the rows of the bucket, signal and direction. 1 has the largest |z_score|. Null: steady.",
    ),
    Column("complete", "boolean", "Whether the bucket had ended at the newest event."),
)

EVENTS = Table(
    name="events",
    job="ingest",
    comment="Every valid event of the store, one row each.",
    columns=(
        Column(
            "event_id",
            "string",
            "First 16 bytes of SHA-256 over the log's own event id, or over the event's nine fields, as 32 hexadecimal "
            "digits.",
        ),
        Column("event_time", "timestamp", "Time of the event (UTC)."),
        Column("event_date", "date", "UTC date of event_time."),
        Column("event_type", "string", "view, cart, remove_from_cart or purchase."),
        _PRODUCT_ID,
        Column("category_id", "string", "Category id as delivered. Null: none was delivered."),
        Column(
            "category_code",
            "string",
            "Category path as delivered, like electronics.smartphone. Null: none was delivered.",
        ),
        Column("brand", "string", "Brand as delivered. Null: none was delivered."),
        Column("price", "decimal(12,2)", "Price in the store's currency, at least 0. Null: none was delivered."),
        _USER_OR_GUEST,
        Column("user_session", "string", "Session id as delivered. Null: none was delivered."),
        Column("source", "string", "Where the event was first read: a file's URI, or kafka:topic/partition/offset."),
        Column("ingested_at", "timestamp", "Start of the micro-batch that wrote the row (UTC)."),
        _INGEST_BATCH,
        Column(
            "nulled_fields",
            "map<string,string>",
            "Optional fields that were malformed and are therefore null, each with its text as delivered. Null: none.",
        ),
    ),
    partition_by=("event_date",),
    statistics=("event_time", "ingested_at"),
    properties={"delta.enableChangeDataFeed": "true"},
)

REJECTED_EVENTS = Table(
    name="rejected_events",
    job="ingest",
    comment="Every line that is no valid event, one row each, with all reasons. A file that could not be read, or that "
    "repeats its header line, also has a row.",
    columns=(
        Column(
            "rejected_id",
            "string",
            "First 16 bytes of a SHA-256, as 32 hexadecimal digits. It is taken over the line's bytes, or over source "
            "and reason for a whole file. For a refused user it is taken over the salt of refused_users with the line "
            "or its event_id.",
        ),
        Column(
            "raw",
            "string",
            "The line as delivered, with U+FFFD for bytes that are not UTF-8. Null: a whole file, or a refused user.",
        ),
        Column("raw_bytes", "binary", "The line's bytes if they are not UTF-8, else null."),
        Column("reasons", "array<string>", "All reasons for the rejection, at least one."),
        Column("source", "string", "Where the line was first read: a file's URI, or kafka:topic/partition/offset."),
        Column("ingested_at", "timestamp", "Start of the micro-batch that wrote the row (UTC)."),
        _INGEST_BATCH,
    ),
    statistics=("ingested_at",),
)

INGESTION_LOG = Table(
    name="ingestion_log",
    former_name="ingested_files",
    job="ingest",
    comment="Every file and every range of a Kafka partition that was read. "
    "lines = events + repeats + rejected + ignored.",
    columns=(
        Column("source", "string", "The file's URI, or kafka:topic/partition/first-last with two offsets."),
        Column(
            "modified_at",
            "timestamp",
            "Time of the file's last change, or arrival of the range's newest message (UTC).",
        ),
        Column("bytes", "bigint", "Length of the file when it was read, or of the range's messages, in bytes."),
        Column(
            "lines",
            "bigint",
            "Number of records, without the file's first header line. A line may hold several records. An unreadable "
            "file counts as 1.",
        ),
        Column("events", "bigint", "Number of records that became a new row of events."),
        Column("repeats", "bigint", "Number of records that repeat an event or a rejected record of before."),
        Column("rejected", "bigint", "Number of records that became a new row of rejected_events."),
        Column("ingested_at", "timestamp", "Start of the micro-batch that read the source (UTC)."),
        _INGEST_BATCH,
        Column("ignored", "bigint", "Number of records whose event type the source description ignores."),
        Column("nulled", "bigint", "Number of valid events with a malformed optional field, repeats included."),
        Column("refused", "boolean", "Whether the file could not be read as the source description says."),
        Column("source_description", "string", "Hash of the source description with which the source was read."),
    ),
)

REFUSED_USERS = Table(
    name="refused_users",
    job="forget --refuse",
    comment="Users who were forgotten and whose events are refused since then. The table holds no user ids.",
    columns=(
        Column(
            "user",
            "string",
            "Pseudonym: SHA-256 over the table's salt, a colon and the user id, as 64 hexadecimal digits.",
        ),
    ),
)

PRODUCTS = Table(
    name="products",
    job="ingest",
    comment="Every product that has an event, with the newest known value of each attribute. Events that are set aside "
    "(later than the newest date) count only for a product without other events.",
    columns=(
        _PRODUCT_ID,
        Column("category_id", "string", "Newest category id that is not null. Null: no event has one."),
        Column("category_code", "string", "Newest category path that is not null. Null: no event has one."),
        Column("brand", "string", "Newest brand that is not null. Null: no event has one."),
        Column(
            "price",
            "decimal(12,2)",
            "Newest price that is not null, in the store's currency, at least 0. Null: no event has one.",
        ),
        Column("first_seen", "timestamp", "Time of the product's first event (UTC)."),
        Column("last_seen", "timestamp", "Time of the product's newest event (UTC)."),
        Column(
            "category_id_time", "timestamp", "Time of the event with this category_id (UTC). Null: no event has one."
        ),
        Column(
            "category_code_time",
            "timestamp",
            "Time of the event with this category_code (UTC). Null: no event has one.",
        ),
        Column("brand_time", "timestamp", "Time of the event with this brand (UTC). Null: no event has one."),
        Column("price_time", "timestamp", "Time of the event with this price (UTC). Null: no event has one."),
    ),
    statistics=("product_id",),
)

DEMAND = Table(
    name="demand",
    job="trends",
    settings_section="trends",
    comment="Number of events per bucket, signal and product. A product without events has no row.",
    columns=(
        _BUCKET,
        _SIGNAL,
        _PRODUCT_ID,
        Column("events", "bigint", "Number of the product's events in the bucket, at least 1."),
    ),
    partition_by=("bucket_start",),
)

TRENDS = Table(
    name="trends",
    job="trends",
    settings_section="trends",
    comment="Demand per bucket, signal and product, compared with the bucket before, and whether it is a trend.",
    columns=(
        _BUCKET,
        _SIGNAL,
        _PRODUCT_ID,
        Column(
            "category_code",
            "string",
            "Newest category path of the product in the two buckets. Null: no event there has one.",
        ),
        Column("brand", "string", "Newest brand of the product in the two buckets. Null: no event there has one."),
        *_TREND_FIGURES,
    ),
    partition_by=("bucket_start",),
)

CATEGORY_TRENDS = Table(
    name="category_trends",
    job="trends",
    settings_section="trends",
    comment="Demand per bucket, signal and category path, judged like trends. Events without a category path count "
    "only in the total demand.",
    columns=(_BUCKET, _SIGNAL, Column("category_code", "string", "Category path, never null."), *_TREND_FIGURES),
    partition_by=("bucket_start",),
)

BRAND_TRENDS = Table(
    name="brand_trends",
    job="trends",
    settings_section="trends",
    comment="Demand per bucket, signal and brand, judged like trends. Events without a brand count only in the total "
    "demand.",
    columns=(_BUCKET, _SIGNAL, Column("brand", "string", "Brand, never null."), *_TREND_FIGURES),
    partition_by=("bucket_start",),
)

USER_TRENDS = Table(
    name="user_trends",
    job="trends",
    settings_section="trends",
    comment="Per bucket and user, the percentages of interactions with rising and with waning products.",
    columns=(
        _BUCKET,
        _USER_ID,
        Column("interactions", "bigint", "Number of the user's views, carts and purchases in the bucket, at least 1."),
        Column(
            "rising_pct",
            "double",
            "Percentage of interactions with products that were rising by the interaction's signal, in [0, 100].",
        ),
        Column(
            "waning_pct",
            "double",
            "Percentage of interactions with products that were waning by the interaction's signal, in [0, 100].",
        ),
    ),
    partition_by=("bucket_start",),
)

BASKETS = Table(
    name="baskets",
    job="similarity",
    comment="Products that one visitor touched in one session on one date. Of rows that differ only in first_time and "
    "batch_id, the smallest first_time counts.",
    columns=(
        _DATE,
        _RELATION,
        _VISITOR,
        Column(
            "user_session",
            "string",
            "Session id. Empty instead of null if the event has none, and for what users bought.",
        ),
        _PRODUCT_ID,
        Column("first_time", "timestamp", "Time of the product's first event in the basket (UTC)."),
        _BATCH_ID,
    ),
    partition_by=("event_date",),
)

CO_INTERACTIONS = Table(
    name="co_interactions",
    job="similarity",
    comment="Co-occurrence counts by date and relation. Sum the rows of a pair. The pair (i, i) counts the baskets "
    "with product i, and (0, 0) counts all baskets.",
    columns=(
        _DATE,
        _RELATION,
        Column(
            "item_a",
            ID,
            "The smaller product id of the pair. 0 stands for the basket itself.",
            "The smaller product id of the pair, in the order of texts. The empty text stands for the basket itself, "
            "which other comments call 0.",
        ),
        Column("item_b", ID, "The larger product id of the pair, equal to item_a in (i, i) and (0, 0)."),
        Column(
            "baskets",
            "bigint",
            "Number of baskets in which the two lie at most similarity.window steps apart. Negative: the row corrects "
            "earlier rows.",
        ),
        Column(
            "strength",
            "bigint",
            "Sum of 1/steps over these baskets, in units of 1/60. 0 in (i, i) and (0, 0). Negative: the row corrects "
            "earlier rows.",
        ),
        _BATCH_ID,
    ),
    partition_by=("event_date",),
)

SIMILAR_ITEMS = Table(
    name="similar_items",
    job="similarity",
    settings_section="similarity",
    comment="The most similar products of each product, by relation.",
    columns=(
        _RELATION,
        _PRODUCT_ID,
        Column(
            "similar_product_id",
            ID,
            "Product id of the neighbour, above 0.",
            "Product id of the neighbour as delivered, never empty.",
        ),
        Column("rank", "int", "Position among the product's neighbours. 1 is the most similar."),
        Column(
            "score",
            "double",
            "Similarity by similarity.measure, above 0. Older dates weigh less, by similarity.half_life_days.",
        ),
        Column("baskets", "bigint", "Number of baskets in which the two co-interact, at least 1. Age does not matter."),
        Column(
            "strength",
            "bigint",
            "Sum of 1/steps over these baskets, in units of 1/60, above 0. Age does not matter.",
        ),
    ),
    statistics=("product_id",),
)

RECOMMENDATIONS = Table(
    name="recommendations",
    job="recommend",
    settings_section="recommendations",
    comment="The list of each active user, with reasons and the versions of the tables it was computed from.",
    columns=(
        _USER_ID,
        Column("rank", "int", "Position in the user's list. 1 is the best."),
        Column(
            "product_id",
            ID,
            "Product id of the recommended product, above 0.",
            "Product id of the recommended product as delivered, never empty.",
        ),
        Column("category_code", "string", "The product's newest category path. Null: no event has one."),
        Column("brand", "string", "The product's newest brand. Null: no event has one."),
        Column(
            "price",
            "decimal(12,2)",
            "The product's newest price, in the store's currency, at least 0. Null: no event has one.",
        ),
        Column(
            "score",
            "double",
            "Similarity to the user's profile, times 1 + recommendations.trend_weight * trend_growth, above 0. "
            "Null: the product fills up a short list.",
        ),
        Column("reason", "string", "Why the product is in the list, in words."),
        Column(
            "because_of",
            ID,
            "Product id of the profile item that adds most to the score. Null: the product fills up a short list.",
        ),
        Column(
            "trend_growth",
            "double",
            "Growth of the product's views in the newest complete bucket, in (-1, 1). 0 if they were steady.",
        ),
        Column("events_version", "bigint", "Version of events from which the profiles were computed."),
        Column("products_version", "bigint", "Version of products that was read."),
        Column("similar_items_version", "bigint", "Version of similar_items that was read."),
        Column("trends_version", "bigint", "Version of trends that was read."),
    ),
    statistics=("rank",),
)

EVALUATIONS = Table(
    name="evaluations",
    job="evaluate",
    comment="Quality of recommendation lists by method, protocol and slice. Each run has its own id.",
    columns=(
        Column("run_id", "string", "Id of the run of evaluate, or of one trial of evaluate --tune."),
        Column("evaluated_at", "timestamp", "Time at which the results were stored (UTC)."),
        Column("method", "string", "recommend for the lists that are served, else the name of a baseline."),
        Column("protocol", "string", "next-item, second-half or future."),
        Column("repeats", "boolean", "Whether products that a query reveals may be recommended and count as targets."),
        Column(
            "slice",
            "string",
            "all, a part of the targets like event_type=cart, or a trial of a search like "
            "tuning similarity.max_neighbours = 50.",
        ),
        Column("queries", "bigint", "Number of lists, one per query."),
        Column("targets", "bigint", "Number of products that the lists should hold. Null: a trial of a search."),
        Column("metric", "string", "Name of the metric and length of the lists, like hr@20."),
        Column(
            "value",
            "double",
            "Value of the metric. hr, mrr, recall, precision, ndcg and map are means over the queries, in [0, 1].",
        ),
        Column(
            "difference",
            "double",
            "value minus the value of recommend, or of the best settings so far in a search. Null: not compared.",
        ),
        Column("low", "double", "Lower end of the 95 % interval of difference. Null: not compared."),
        Column("high", "double", "Upper end of the 95 % interval of difference. Null: not compared."),
        Column("share", "double", "Share of the sessions that begin before the split, in (0, 1)."),
        Column("settings", "string", "All settings of the run, as JSON."),
        Column("events_version", "bigint", "Version of events that was evaluated."),
    ),
)

JOB_RUNS = Table(
    name="job_runs",
    job="run",
    comment="What jobs did: one row per run that ended by itself, and one row per micro-batch of a stream.",
    columns=(
        Column("run_id", "string", "Random id of the process that ran the job."),
        Column("job", "string", "Name of the job, or of the micro-batch's stream."),
        Column("batch_id", "bigint", "Number of the micro-batch, from 0. Null: a run."),
        Column("started_at", "timestamp", "Start of the run or micro-batch (UTC)."),
        Column("seconds", "double", "Duration in seconds."),
        Column(
            "input_rows",
            "bigint",
            "Number of input rows of the micro-batch as Spark counts them, 1 for a file. Null: a run.",
        ),
        Column(
            "messages_behind",
            "bigint",
            "Number of messages in the topic after the micro-batch. Null: a run, or a stream that reads no topic.",
        ),
        Column("outcome", "string", "done or failed."),
        Column("detail", "string", "The run's summary or error, or the micro-batch's milliseconds per phase as JSON."),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        EVENTS,
        REJECTED_EVENTS,
        INGESTION_LOG,
        REFUSED_USERS,
        PRODUCTS,
        DEMAND,
        TRENDS,
        CATEGORY_TRENDS,
        BRAND_TRENDS,
        USER_TRENDS,
        BASKETS,
        CO_INTERACTIONS,
        SIMILAR_ITEMS,
        RECOMMENDATIONS,
        EVALUATIONS,
        JOB_RUNS,
    )
}
