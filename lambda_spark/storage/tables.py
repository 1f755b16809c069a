"""The lake's tables: names, columns and comments, each declared once. This page is the lake's dictionary."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its Spark SQL type and what it means."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A Delta table of the lake.

    `statistics` are the columns whose minimum and maximum Delta keeps per file: few, since each costs time at every
    commit, and never a user's.
    """

    name: str
    job: str
    """The job that writes it."""
    comment: str
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]


STEADY = "steady"
"""Direction of a trend row that neither rises nor wanes."""

_BUCKET = Column("bucket_start", "timestamp", "First moment of the bucket (UTC)")
_SIGNAL = Column("signal", "string", "Which interactions are counted: view, cart or purchase")
_DATE = Column("event_date", "date", "UTC date")
_RELATION = Column("relation", "string", "viewed: any interaction in one session; bought: purchases of one day")
_INGEST_BATCH = Column("ingest_batch", "string", "Application id and number of the micro-batch that wrote the row")
_BATCH_ID = Column("batch_id", "bigint", "Number of the micro-batch that wrote the row")

_TREND_FIGURES = (
    Column("current", "bigint", "Events in this bucket"),
    Column("previous", "bigint", "Events in the bucket before it"),
    Column("change", "bigint", "current - previous, in events"),
    Column("growth", "double", "Damped relative change, in (-1, 1): (current - previous) / (current + previous + 1)"),
    Column("z_score", "double", "Change of the share of all demand, in standard deviations of independent events"),
    Column(
        "overdispersion",
        "double",
        "Factor on the variance of independent events, from all of the bucket and signal; null: too few events to test",
    ),
    Column(
        "p_value", "double", "Chance of such a change of the share, that way, if only chance moved it; null: untested"
    ),
    Column(
        "q_value",
        "double",
        "Expected share of chance among what moved that way with at most this p_value; null: untested",
    ),
    Column(
        "trend_pct", "double", "Share, in percent, of all change in this bucket, signal and direction; null: steady"
    ),
    Column("change_pct", "double", "100 * change / previous, in percent; null where previous is 0 (new)"),
    Column("direction", "string", "rising, waning or steady"),
    Column("rank", "int", "Place among those of the same bucket, signal and direction, 1 the strongest; null: steady"),
    Column("complete", "boolean", "Whether the bucket had ended at the newest event"),
)

EVENTS = Table(
    name="events",
    job="ingest",
    comment="Every valid event of the store, once",
    columns=(
        Column("event_id", "string", "Hex of the first 16 bytes of SHA-256 over the nine columns of the event"),
        Column("event_time", "timestamp", "When it happened (UTC)"),
        Column("event_date", "date", "UTC date of event_time"),
        Column("event_type", "string", "view, cart, remove_from_cart or purchase"),
        Column("product_id", "bigint", "Product, above 0"),
        Column("category_id", "bigint", "Category number, as delivered"),
        Column("category_code", "string", "Category path like electronics.smartphone; null where the store has none"),
        Column("brand", "string", "Brand, as delivered"),
        Column("price", "decimal(12,2)", "Price in the store's currency, at least 0"),
        Column("user_id", "bigint", "User, above 0"),
        Column("user_session", "string", "Session id, as delivered"),
        Column("source", "string", "Where the event came from first: a file, or kafka:topic/partition/offset"),
        Column("ingested_at", "timestamp", "Start of the micro-batch that wrote the row (UTC)"),
        _INGEST_BATCH,
    ),
    partition_by=("event_date",),
    statistics=("event_time", "ingested_at"),
    properties={"delta.enableChangeDataFeed": "true"},
)

REJECTED_EVENTS = Table(
    name="rejected_events",
    job="ingest",
    comment="Every line that is no valid event, once, with all reasons; a file that could not be read is one row",
    columns=(
        Column(
            "rejected_id",
            "string",
            "Hex of the first 16 bytes of SHA-256 over the raw bytes (with the salt of refused_users before them, "
            "where the user is refused), or over the source and the reason",
        ),
        Column(
            "raw",
            "string",
            "The line as delivered (bytes that are no UTF-8 shown as U+FFFD); null for a whole file, and where the "
            "user is refused",
        ),
        Column("raw_bytes", "binary", "The line's bytes where they are no UTF-8, else null"),
        Column("reasons", "array<string>", "Everything that is wrong with it"),
        Column("source", "string", "Where it came from first: a file, or kafka:topic/partition/offset"),
        Column("ingested_at", "timestamp", "Start of the micro-batch that wrote the row (UTC)"),
        _INGEST_BATCH,
    ),
    statistics=("ingested_at",),
)

INGESTED_FILES = Table(
    name="ingested_files",
    job="ingest",
    comment="Every file, or part of a Kafka partition, that was read: lines = events + repeats + rejected",
    columns=(
        Column("source", "string", "File, as a URI, or kafka:topic/partition/first-last offset"),
        Column(
            "modified_at",
            "timestamp",
            "When it was changed, or its newest message arrived (UTC)",
        ),
        Column("bytes", "bigint", "Its length when it was read, or that of its messages, in bytes"),
        Column("lines", "bigint", "Data lines read (header lines left out); an unreadable file counts as one"),
        Column("events", "bigint", "Lines that became a new event"),
        Column("repeats", "bigint", "Lines that repeat an event or a rejected line which was there already"),
        Column("rejected", "bigint", "Lines that became a new row of rejected_events"),
        Column("ingested_at", "timestamp", "Start of the micro-batch that read it (UTC)"),
        _INGEST_BATCH,
    ),
)

REFUSED_USERS = Table(
    name="refused_users",
    job="forget --refuse",
    comment="Users whose events are refused since they were forgotten, without their ids",
    columns=(Column("user", "string", "Hex of SHA-256 over the table's salt, a colon and the user's id"),),
)

PRODUCTS = Table(
    name="products",
    job="ingest",
    comment="Every product of an event, with its newest known attributes",
    columns=(
        Column("product_id", "bigint", "Product"),
        Column("category_id", "bigint", "Newest category number that is not null"),
        Column("category_code", "string", "Newest category path that is not null"),
        Column("brand", "string", "Newest brand that is not null"),
        Column("price", "decimal(12,2)", "Newest price that is not null"),
        Column("first_seen", "timestamp", "Time of its first event (UTC)"),
        Column("last_seen", "timestamp", "Time of its newest event (UTC)"),
        Column("category_id_time", "timestamp", "Time of the event that category_id is from"),
        Column("category_code_time", "timestamp", "Time of the event that category_code is from"),
        Column("brand_time", "timestamp", "Time of the event that brand is from"),
        Column("price_time", "timestamp", "Time of the event that price is from"),
    ),
    statistics=("product_id",),
)

DEMAND = Table(
    name="demand",
    job="trends",
    comment="Events per bucket, signal and product",
    columns=(
        _BUCKET,
        _SIGNAL,
        Column("product_id", "bigint", "Product"),
        Column("events", "bigint", "Events of the product in the bucket"),
    ),
    partition_by=("bucket_start",),
)

TRENDS = Table(
    name="trends",
    job="trends",
    comment="Per bucket, signal and product: demand against the bucket before, and whether that is a trend",
    columns=(
        _BUCKET,
        _SIGNAL,
        Column("product_id", "bigint", "Product"),
        Column("category_code", "string", "The product's newest category path within the two buckets"),
        Column("brand", "string", "The product's newest brand within the two buckets"),
        *_TREND_FIGURES,
    ),
    partition_by=("bucket_start",),
)

CATEGORY_TRENDS = Table(
    name="category_trends",
    job="trends",
    comment="As trends, per category path; events without one count in the total demand only",
    columns=(_BUCKET, _SIGNAL, Column("category_code", "string", "Category path"), *_TREND_FIGURES),
    partition_by=("bucket_start",),
)

BRAND_TRENDS = Table(
    name="brand_trends",
    job="trends",
    comment="As trends, per brand; events without one count in the total demand only",
    columns=(_BUCKET, _SIGNAL, Column("brand", "string", "Brand"), *_TREND_FIGURES),
    partition_by=("bucket_start",),
)

USER_TRENDS = Table(
    name="user_trends",
    job="trends",
    comment="Per bucket and user: what part of the interactions was with products that were rising, and waning",
    columns=(
        _BUCKET,
        Column("user_id", "bigint", "User"),
        Column("interactions", "bigint", "Views, carts and purchases of the user in the bucket"),
        Column("rising_pct", "double", "Percent of them with products that were rising by the interaction's signal"),
        Column("waning_pct", "double", "Percent of them with products that were waning by the interaction's signal"),
    ),
    partition_by=("bucket_start",),
)

BASKETS = Table(
    name="baskets",
    job="similarity",
    comment="What one visitor touched in one session on one date; the smallest first_time of a key counts",
    columns=(
        _DATE,
        _RELATION,
        Column("user_id", "bigint", "User"),
        Column("user_session", "string", "Session id, '' where the event has none, and '' for bought"),
        Column("product_id", "bigint", "Product"),
        Column("first_time", "timestamp", "Time of its first event in the basket (UTC)"),
        _BATCH_ID,
    ),
    partition_by=("event_date",),
)

CO_INTERACTIONS = Table(
    name="co_interactions",
    job="similarity",
    comment="Co-occurrence by date, to be summed by key; (i, i) counts the baskets of i, and (0, 0) all baskets",
    columns=(
        _DATE,
        _RELATION,
        Column("item_a", "bigint", "The smaller product id; 0 stands for the basket itself"),
        Column("item_b", "bigint", "The larger product id; the same as item_a on the diagonal"),
        Column("baskets", "bigint", "Baskets in which both lie at most `window` steps apart"),
        Column("strength", "bigint", "Sum of 1/steps over those baskets, in units of 1/60; 0 on the diagonal"),
        _BATCH_ID,
    ),
    partition_by=("event_date",),
)

SIMILAR_ITEMS = Table(
    name="similar_items",
    job="similarity",
    comment="The most similar products of each product, by relation",
    columns=(
        _RELATION,
        Column("product_id", "bigint", "Product"),
        Column("similar_product_id", "bigint", "Its neighbour"),
        Column("rank", "int", "Place among the product's neighbours, 1 the most similar"),
        Column("score", "double", "The measure's score, older dates weighing less"),
        Column("baskets", "bigint", "Baskets in which both co-interact, not decayed"),
        Column("strength", "bigint", "Sum of 1/steps over those baskets in units of 1/60, not decayed"),
    ),
    statistics=("product_id",),
)

RECOMMENDATIONS = Table(
    name="recommendations",
    job="recommend",
    comment="The list of each active user, with reasons and the versions of the tables it was computed from",
    columns=(
        Column("user_id", "bigint", "User"),
        Column("rank", "int", "Place in the user's list, 1 the best"),
        Column("product_id", "bigint", "Recommended product"),
        Column("category_code", "string", "Its newest category path"),
        Column("brand", "string", "Its newest brand"),
        Column("price", "decimal(12,2)", "Its newest price"),
        Column(
            "score", "double", "Similarity to the user's profile, moved by the trend; null where the list was filled"
        ),
        Column("reason", "string", "Why it is here, in words"),
        Column("because_of", "bigint", "The profile product that speaks most for it; null where the list was filled"),
        Column("trend_growth", "double", "Growth of its views in the newest complete bucket; 0 where steady"),
        Column("events_version", "bigint", "Version of events that the profiles are from"),
        Column("products_version", "bigint", "Version of products"),
        Column("similar_items_version", "bigint", "Version of similar_items"),
        Column("trends_version", "bigint", "Version of trends"),
    ),
    statistics=("rank",),
)

EVALUATIONS = Table(
    name="evaluations",
    job="evaluate",
    comment="How good recommendations were, by method, protocol and slice, each run under its id",
    columns=(
        Column("run_id", "string", "Run of `evaluate`"),
        Column("evaluated_at", "timestamp", "Its start (UTC)"),
        Column("method", "string", "recommend is what is served, the others are baselines"),
        Column("protocol", "string", "next-item, second-half or future"),
        Column("repeats", "boolean", "Whether items that were revealed may be recommended and are asked for"),
        Column(
            "slice",
            "string",
            "all, a part of the targets, like event_type=cart, or a trial of a search, like tuning similarity.k = 50",
        ),
        Column("queries", "bigint", "Lists that were asked for"),
        Column("targets", "bigint", "Products that would have been right"),
        Column("metric", "string", "Metric and length of the lists, like hr@20"),
        Column("value", "double", "Mean over the queries"),
        Column(
            "difference",
            "double",
            "value minus that of recommend (in a search: of the best so far); null where it is not compared",
        ),
        Column("low", "double", "Lower end of its 95 % interval"),
        Column("high", "double", "Upper end of its 95 % interval"),
        Column("share", "double", "Share of the sessions that begin before the split"),
        Column("settings", "string", "The settings, as JSON"),
        Column("events_version", "bigint", "Version of events that it was computed from"),
    ),
)

JOB_RUNS = Table(
    name="job_runs",
    job="run",
    comment="What jobs did: a row per run that ended by itself, and one per micro-batch of a stream",
    columns=(
        Column("run_id", "string", "Process that did it"),
        Column("job", "string", "Job, or stream that a micro-batch is of"),
        Column("batch_id", "bigint", "Number of the micro-batch; null for a run"),
        Column("started_at", "timestamp", "Its start (UTC)"),
        Column("seconds", "double", "How long it took"),
        Column("input_rows", "bigint", "Rows of the micro-batch's input as Spark counts them; a file counts as one"),
        Column("messages_behind", "bigint", "Messages that Kafka had beyond it; null where it read no topic"),
        Column("outcome", "string", "done or failed"),
        Column("detail", "string", "A run's summary or error; a micro-batch's milliseconds per phase, as JSON"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        EVENTS,
        REJECTED_EVENTS,
        INGESTED_FILES,
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
