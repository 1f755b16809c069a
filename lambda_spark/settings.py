"""All settings, each with its type, default and range.

The option `--set section.key=value` takes precedence over the file that the option `--conf-file` names (by default
`conf/lambda.toml`). That file takes precedence over the defaults here.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NewType, TypeVar, get_args, get_origin, get_type_hints

from lambda_spark.errors import UsageError
from lambda_spark.source_description import SourceDescription

Measure = Literal["confidence", "cosine", "jaccard", "lift", "llr"]
Repeat = Literal["exclude", "allow", "boost"]
Reread = Literal["never", "changed"]
Section = TypeVar("Section")
ProductId = NewType("ProductId", str)
"""A product id as it is written, also where the lake's ids are whole numbers."""

AVAILABLE_NOW = "available-now"

RENAMED = {
    "ingest.earliest": "ingest.min_event_date",
    "ingest.header": "source.header",
    "trends.max_false_share": "trends.max_fdr",
    "similarity.k": "similarity.max_neighbours",
    "recommendations.k": "recommendations.list_length",
    "recommendations.own_weight": "recommendations.repeat_weight",
    "recommendations.allow": "recommendations.allow_products",
    "recommendations.deny": "recommendations.deny_products",
}
"""Names of settings in version 0.1, each with the current name."""
RENAMED_VALUES = {("recommendations.repeat", "own-row"): "boost"}
"""Settings whose value had another name in version 0.1, each with the current name of the value."""

_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_MAX_DURATION = timedelta(days=1_000_000)
_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """How event files are found and read."""

    source: str = ""
    """Folder or file that `ingest` and `run` read when their command names none."""
    min_event_date: date = date(2000, 1, 1)
    """Events before this date are rejected."""
    max_ahead: timedelta = timedelta(minutes=10)
    """How far an event may be ahead of the clock of `ingest`, at least `0 minutes`. Later events are rejected."""
    refresh_interval: timedelta = timedelta(minutes=1)
    """Time between two refreshes of `products` in a job that stays up."""
    max_bytes_per_batch: str = "1g"
    """Maximum bytes of files in one micro-batch, like `512k` or `1g`. A single file is never split."""
    exclude: tuple[str, ...] = ()
    """Files to skip: names or paths, with the wildcards `*`, `?` and `[…]` of a shell."""
    max_rejected_share: float = 0.5
    """Largest share of rejected records, 0 to 1. A run above it ends with exit code 1, after all its commits."""
    reread: Reread = "never"
    """What happens to a file that changed after it was read: never, or changed (it is read again)."""

    def __post_init__(self) -> None:
        _require(0 <= self.max_rejected_share <= 1, "ingest.max_rejected_share must be 0 to 1")
        _require(self.max_ahead >= timedelta(0), "ingest.max_ahead must be at least '0 minutes'")
        size_in_bytes(self.max_bytes_per_batch, "ingest.max_bytes_per_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """The Kafka topic that `ingest --source kafka` reads and `replay` writes."""

    bootstrap_servers: str = ""
    """Brokers to connect to first, like `one:9092,two:9092`."""
    topic: str = ""
    """Name of the topic."""
    properties_file: str = ""
    """File with Kafka client properties (security.protocol, sasl.jaas.config, …). Its content is never printed."""
    max_messages_per_batch: int = 500_000
    """Maximum number of messages in one micro-batch, at least 1."""

    def __post_init__(self) -> None:
        is_name = re.fullmatch(r"[A-Za-z0-9._-]{0,249}", self.topic) and self.topic not in (".", "..")
        _require(bool(is_name), f"kafka.topic must be a topic's name (letters, digits, . _ -), not '{self.topic}'")
        _require(self.max_messages_per_batch >= 1, "kafka.max_messages_per_batch must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendSettings:
    """What counts as a trend."""

    bucket: timedelta = timedelta(days=7)
    """Length of a bucket, like `7 days`, `12 hours` or `30 minutes`; at least 1 minute."""
    origin: date = date(1970, 1, 5)
    """A date on which a bucket begins (UTC). The default makes buckets of 7 days begin on Mondays."""
    min_change: int = 10
    """Smallest change between two buckets that counts as a trend, in events, at least 0."""
    min_z: float = 3.0
    """Smallest |z_score| that counts as a trend, in standard deviations of independent events, at least 0."""
    max_fdr: float = 0.05
    """Largest false discovery rate of the trends of a bucket, signal and direction, in (0, 1].

    With 1, only `min_change` and `min_z` decide.
    """

    def __post_init__(self) -> None:
        _require(self.bucket >= timedelta(minutes=1), "trends.bucket must be at least '1 minute'")
        _require(self.min_change >= 0, "trends.min_change must be at least 0")
        _require(self.min_z >= 0, "trends.min_z must be at least 0")
        _require(0 < self.max_fdr <= 1, "trends.max_fdr must be above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilaritySettings:
    """Which items co-interact, and how their similarity is scored."""

    window: int = 5
    """Maximum number of steps between two items of a basket that co-interact, 1 to 6.

    The tables keep the window they were made with. To change it, run `similarity --rebuild`.
    """
    measure: Measure = "confidence"
    """The measure of similarity: confidence, cosine, jaccard, lift or llr."""
    max_neighbours: int = 20
    """Maximum number of neighbours per product and relation, at least 1."""
    half_life_days: float = 30.0
    """Age, in days before the newest event's date, at which a basket counts half. With 0, age does not matter."""
    min_baskets: int = 1
    """Minimum number of baskets that two neighbours share, at least 1."""
    refresh_interval: timedelta = timedelta(minutes=5)
    """Time between two refreshes of `similar_items` in a job that stays up."""
    max_bytes_per_batch: str = "256m"
    """Maximum bytes of `events` in one micro-batch, like `512k` or `1g`."""

    def __post_init__(self) -> None:
        _require(1 <= self.window <= 6, "similarity.window must be 1 to 6")
        _require(self.max_neighbours >= 1, "similarity.max_neighbours must be at least 1")
        _require(self.half_life_days >= 0, "similarity.half_life_days must be at least 0 (0: no decay)")
        _require(self.min_baskets >= 1, "similarity.min_baskets must be at least 1")
        size_in_bytes(self.max_bytes_per_batch, "similarity.max_bytes_per_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendationSettings:
    """Who gets a list, how products are scored, and which products may be in a list."""

    list_length: int = 10
    """Maximum number of products in a user's list, 1 to 1000."""
    profile_items: int = 10
    """Number of a user's latest distinct products that form the profile, 1 to 1000."""
    profile_decay: float = 0.5
    """Weight of a profile item relative to the next newer one, in (0, 1]."""
    view_weight: float = 1.0
    """Weight of a product that the user viewed, 0 to 1000."""
    cart_weight: float = 2.0
    """Weight of a product that the user put into the cart, 0 to 1000."""
    purchase_weight: float = 3.0
    """Weight of a product that the user purchased, 0 to 1000."""
    active_days: int = 30
    """Number of days, ending with the newest event's date, at least 1. Users who interacted in them get a list."""
    trend_weight: float = 1.0
    """Influence of a trend on a score, 0 to 1: the score is multiplied by 1 + trend_weight · growth."""
    repeat: Repeat = "exclude"
    """How to treat products of the user's own profile.

    `exclude` leaves them out. `allow` recommends them as neighbours of other products. `boost` also gives each of them
    a score of its own ("still interested?").
    """
    repeat_weight: float = 1.0
    """With `repeat = "boost"`: the similarity of a profile item to itself, 0 to 1000.

    People return to a product that they just looked at far more often than they go on to any one neighbour.
    """
    max_per_category: int = 0
    """Maximum number of products of one category in a list; 0 sets no limit.

    Products without a category are not limited.
    """
    filter: str = ""
    """An SQL predicate over `products`, like `price > 10`. Only products that fulfil it are recommended."""
    allow_products: tuple[ProductId, ...] = ()
    """Product ids, numbers or texts as the lake has them. If there are any, only these are recommended.

    On the command line, an id with a comma stands between double quotes.
    """
    deny_products: tuple[ProductId, ...] = ()
    """Product ids that are never recommended, written like `allow_products`."""

    def __post_init__(self) -> None:
        _require(1 <= self.list_length <= 1000, "recommendations.list_length must be 1 to 1000")
        _require(1 <= self.profile_items <= 1000, "recommendations.profile_items must be 1 to 1000")
        _require(0 < self.profile_decay <= 1, "recommendations.profile_decay must be above 0 and at most 1")
        for name in ("view_weight", "cart_weight", "purchase_weight", "repeat_weight"):
            _require(0 <= getattr(self, name) <= 1000, f"recommendations.{name} must be 0 to 1000")
        _require(self.active_days >= 1, "recommendations.active_days must be at least 1")
        _require(0 <= self.trend_weight <= 1, "recommendations.trend_weight must be 0 to 1")
        _require(self.max_per_category >= 0, "recommendations.max_per_category must be at least 0 (0: no limit)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSettings:
    """What `maintain` compacts and deletes."""

    min_files: int = 10
    """Minimum number of files of a date, or of a table without dates, for compaction; at least 2."""
    retention: timedelta = timedelta(days=7)
    """How far back versions can be read and restored, at least 1 hour. Files of older versions are deleted."""
    expire_days: int = 0
    """Age, in days before the newest event's date, after which events expire. With 0, they never expire."""

    def __post_init__(self) -> None:
        _require(self.min_files >= 2, "maintenance.min_files must be at least 2")
        _require(self.retention >= timedelta(hours=1), "maintenance.retention must be at least '1 hour'")
        _require(0 <= self.expire_days <= 100_000, "maintenance.expire_days must be at least 0 (0: never)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, by section."""

    source: SourceDescription = field(default_factory=SourceDescription)
    ingest: IngestSettings = field(default_factory=IngestSettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    trends: TrendSettings = field(default_factory=TrendSettings)
    similarity: SimilaritySettings = field(default_factory=SimilaritySettings)
    recommendations: RecommendationSettings = field(default_factory=RecommendationSettings)
    maintenance: MaintenanceSettings = field(default_factory=MaintenanceSettings)


_SECTIONS = {section.name: section.default_factory for section in fields(Settings)}


def load_settings(conf_file: Path | None, assignments: Iterable[str] = (), source_file: Path | None = None) -> Settings:
    """Load the settings of a file, overridden by assignments.

    Args:
        conf_file: A TOML file with a table per section; None for the defaults.
        assignments: Texts like `trends.bucket=30 minutes`.
        source_file: A TOML file with the section `[source]`, which replaces this section of the settings file.

    Raises:
        UsageError: A file cannot be read, a name is unknown, or a value has a wrong type or is out of range.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    if conf_file is not None:
        _assign_file(values, conf_file, "--conf-file")
    if source_file is not None:
        values["source"] = {}
        sections = _assign_file(values, source_file, "--source-file")
        _require(sections == ["source"], f"{source_file}: a source description has one section, [source]")
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        section, dot, key = name.strip().partition(".")
        _require(bool(equals and dot), f"--set {assignment}: write it as section.key=value")
        _assign(values, section, key, value.strip(), "--set ")
    return Settings(**{section: factory(**values[section]) for section, factory in _SECTIONS.items()})  # type: ignore[operator]


def _assign_file(values: dict[str, dict[str, Any]], file: Path, option: str) -> list[str]:
    """Put the settings of a TOML file into `values`, and return the names of the file's sections."""
    content = _read_toml(file, option)
    for section, entries in content.items():
        _require(isinstance(entries, Mapping), f"{file}: '{section}' must be a [section] of settings")
        for key, value in entries.items():
            _assign(values, section, key, value, f"{file}: ")
    return list(content)


def recorded(section: Any) -> dict[str, str]:
    """Convert the settings of a section to texts, so that a table can record them.

    Args:
        section: An instance of one of the settings classes.

    Returns:
        A text for each setting. The function `from_recorded` converts these texts back.
    """
    return {key: _to_text(value) for key, value in asdict(section).items()}


def from_recorded(section: type[Section], texts: Mapping[str, str]) -> Section:
    """Convert the texts that a table has recorded back to the settings of a section.

    Args:
        section: The class of the settings.
        texts: The texts, by name of the setting. Names that this section does not have are ignored.

    Returns:
        The settings. A setting without a recorded text gets its default.
    """
    hints = get_type_hints(section)
    return section(**{key: _convert(text, hints[key], key) for key, text in texts.items() if key in hints})


def renamed_settings(section: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Replace the old names of settings and values that a table has recorded by the current names.

    Args:
        section: Name of the section, like `trends`.
        texts: The recorded texts, by the recorded name of the setting.

    Returns:
        The texts, by the current name of the setting. Names that never changed stay the same.
    """

    def current(key: str, text: str) -> tuple[str, str]:
        name = f"{section}.{key}"
        return RENAMED.get(name, name).removeprefix(f"{section}."), RENAMED_VALUES.get((name, text), text)

    return dict(current(key, text) for key, text in texts.items())


def size_in_bytes(text: str, name: str) -> int:
    """Convert a size like `512k`, `256m` or `1g` to bytes.

    Args:
        text: The size. The letters k, m and g stand for 2¹⁰, 2²⁰ and 2³⁰ bytes, and no letter stands for bytes.
        name: The setting's name, for the error message.

    Raises:
        UsageError: The text is no size, or the size is 0.
    """
    match = re.fullmatch(r"(\d+)\s*([kmg]?)b?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise UsageError(f"{name} must be a size like '512k', '256m' or '1g', not '{text}'")
    return int(match[1]) * _SIZES[match[2]]


def parse_duration(text: str, name: str) -> timedelta:
    """Convert a duration like `7 days`, `12 hours` or `30 minutes`.

    Args:
        text: The duration, at most 1,000,000 days.
        name: The setting's or option's name, for the error message.

    Raises:
        UsageError: The text is no duration, or the duration is too long.
    """
    match = re.fullmatch(r"(\d{1,10})\s+(minute|hour|day)s?", text.strip().lower())
    if match is None or int(match[1]) > _MAX_DURATION // _UNITS[match[2]]:
        raise UsageError(f"{name} must be a duration like '7 days', '12 hours' or '30 minutes', not '{text}'")
    return int(match[1]) * _UNITS[match[2]]


def check_trigger(text: str) -> str:
    """Check the value of `--trigger`, which tells when a stream starts a micro-batch.

    Args:
        text: `available-now`, or an interval like `10 seconds`.

    Returns:
        The text.

    Raises:
        UsageError: The text is neither `available-now` nor an interval.
    """
    if text == AVAILABLE_NOW or re.fullmatch(r"[1-9]\d{0,6} (second|minute|hour)s?", text):
        return text
    raise UsageError(f"'{text}' is neither '{AVAILABLE_NOW}' nor an interval like '10 seconds' or '5 minutes'")


def _read_toml(file: Path, option: str) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{option} {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {file}: not TOML: {error}") from error


def _assign(values: dict[str, dict[str, Any]], section: str, key: str, value: Any, origin: str) -> None:
    """Convert the value of one setting and store it in `values`. Error messages begin with `origin`."""
    if section not in _SECTIONS:
        raise UsageError(f"{origin}unknown section '{section}'{_did_you_mean(section, _SECTIONS)}")
    hints, name = get_type_hints(_SECTIONS[section]), f"{section}.{key}"
    if name in RENAMED:
        raise UsageError(f"{origin}{name} is now called {RENAMED[name]}: write that name")
    if isinstance(value, str) and (name, value) in RENAMED_VALUES:
        raise UsageError(f"{origin}{name} = {value} is now called {RENAMED_VALUES[name, value]}: write that name")
    table, dot, entry = key.partition(".")
    if dot and get_origin(hints.get(table)) is Mapping:
        # An assignment like `source.fields.user_id=customer` adds one entry to the table `source.fields`.
        values[section][table] = {**values[section].get(table, {}), entry: _to_str(value, f"{origin}{name}")}
        return
    if key not in hints:
        raise UsageError(f"{origin}unknown setting '{section}.{key}'{_did_you_mean(key, hints)}")
    values[section][key] = _convert(value, hints[key], f"{origin}{name}")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(known)}"


def _convert(value: Any, hint: Any, name: str) -> Any:
    """Convert a value to the type of its setting. Values from TOML are typed, those of the command line are text."""
    if isinstance(value, bool) and hint is not bool:
        raise UsageError(f"{name} must not be true or false")
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list) else _items(str(value))
        kind = get_args(hint)[0]
        return tuple(_convert(item.strip() if isinstance(item, str) else item, kind, name) for item in items)
    if get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise UsageError(f"{name} must be a table like [{name.rpartition(' ')[2]}], not '{value}'")
        return {key: _to_str(text, f"{name}.{key}") for key, text in value.items()}
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{name} must be one of {', '.join(get_args(hint))}, not '{value}'")
        return value
    return _CONVERTERS[hint](value, name)


def _items(text: str) -> list[str]:
    """Split a list at its commas. An item with a comma of its own stands between double quotes, as in a CSV file."""
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    return [item for row in rows for item in row if item.strip()]


def _to_bool(value: Any, name: str) -> bool:
    text = str(value).lower()
    if text not in ("true", "false"):
        raise UsageError(f"{name} must be true or false, not '{value}'")
    return text == "true"


def _to_int(value: Any, name: str) -> int:
    try:
        # Refuse a float, because `int` would drop the digits after the decimal point.
        if not isinstance(value, float):
            return int(value)
    except (TypeError, ValueError):
        pass
    raise UsageError(f"{name} must be a whole number, not '{value}'")


def _to_float(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name} must be a number, not '{value}'")
    return number


def _to_date(value: Any, name: str) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise UsageError(f"{name} must be a date like 2019-11-01, not '{value}'") from None


def _to_duration(value: Any, name: str) -> timedelta:
    return parse_duration(str(value), name)


def _to_str(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text, not '{value}'")
    return value


def _to_product_id(value: Any, name: str) -> ProductId:
    return ProductId(str(value) if isinstance(value, int) else _to_str(value, name))


_CONVERTERS: dict[Any, Callable[[Any, str], Any]] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    date: _to_date,
    timedelta: _to_duration,
    str: _to_str,
    ProductId: _to_product_id,
}


def _to_text(value: Any) -> str:
    """Convert a setting's value to a text from which `_convert` can make the same value again."""
    if isinstance(value, timedelta):
        return f"{value // timedelta(minutes=1)} minutes"
    if isinstance(value, tuple):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        return line.getvalue()
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
