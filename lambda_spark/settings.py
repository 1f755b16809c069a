"""Every setting, with its type, its default and its range.

The order of precedence is: `--set section.key=value`, then the file of `--conf-file` (`conf/lambda.toml`), then the
defaults here.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from lambda_spark.errors import UsageError

Measure = Literal["confidence", "cosine", "jaccard", "lift", "llr"]
Repeat = Literal["exclude", "allow", "own-row"]
Section = TypeVar("Section")

AVAILABLE_NOW = "available-now"

_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_LONGEST = timedelta(days=1_000_000)
_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """How event files are found and read."""

    source: str = ""
    """Folder or file that `ingest` and `run` read when their command names none."""
    header: bool = True
    """Whether CSV files begin with a line of column names; without one the columns are read in REES46's order."""
    earliest: date = date(2010, 1, 1)
    """Events before this date are rejected."""
    refresh_interval: timedelta = timedelta(minutes=1)
    """How often a job that stays up renews `products`."""
    max_bytes_per_batch: str = "1g"
    """Most bytes of files in one micro-batch (one file is never split over two)."""
    exclude: tuple[str, ...] = ()
    """Files that are not read: names or paths, `*`, `?` and `[…]` as in a shell."""

    def __post_init__(self) -> None:
        size_in_bytes(self.max_bytes_per_batch, "ingest.max_bytes_per_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """The Kafka topic that `ingest --source kafka` reads and `replay --topic` writes."""

    bootstrap_servers: str = ""
    """Brokers to ask first, like `one:9092,two:9092`."""
    topic: str = ""
    """The topic."""
    properties_file: str = ""
    """File of Kafka client properties (security.protocol, sasl.jaas.config, …); its content is never shown."""
    max_messages_per_batch: int = 500_000
    """Most messages in one micro-batch."""

    def __post_init__(self) -> None:
        fits = re.fullmatch(r"[A-Za-z0-9._-]{0,249}", self.topic) and self.topic not in (".", "..")
        _require(bool(fits), f"kafka.topic must be a topic's name (letters, digits, . _ -), not '{self.topic}'")
        _require(self.max_messages_per_batch >= 1, "kafka.max_messages_per_batch must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendSettings:
    """What counts as a trend."""

    bucket: timedelta = timedelta(days=7)
    """Length of a bucket, like `7 days`, `12 hours` or `30 minutes`."""
    origin: date = date(1970, 1, 5)
    """A date on which a bucket begins (UTC); the default makes 7-day buckets begin on Mondays."""
    min_change: int = 10
    """Smallest change between two buckets that counts as a trend, in events."""
    min_z: float = 3.0
    """Smallest |z| of the change in share that counts as a trend, in standard deviations of independent events."""
    max_false_share: float = 0.05
    """Largest share of chance to expect among the trends of a bucket, signal and direction; 1: only the two above
    decide."""

    def __post_init__(self) -> None:
        _require(self.bucket >= timedelta(minutes=1), "trends.bucket must be at least '1 minute'")
        _require(self.min_change >= 0, "trends.min_change must be at least 0")
        _require(self.min_z >= 0, "trends.min_z must be at least 0")
        _require(0 < self.max_false_share <= 1, "trends.max_false_share must be above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilaritySettings:
    """Which items co-interact, and how similar that makes them."""

    window: int = 5
    """Two items of a basket co-interact when they lie at most this many steps apart, 1 to 6. Fixed for the life of
    the tables: another one needs `similarity --rebuild`."""
    measure: Measure = "confidence"
    """The score: confidence, cosine, jaccard, lift or llr."""
    k: int = 20
    """Neighbours kept per product and relation."""
    half_life_days: float = 30.0
    """A basket this many days older than the newest event counts half; 0 lets old and new count alike."""
    min_baskets: int = 1
    """Pairs seen in fewer baskets are no neighbours."""
    refresh_interval: timedelta = timedelta(minutes=5)
    """How often a job that stays up renews `similar_items`."""
    max_bytes_per_batch: str = "256m"
    """Most bytes of `events` in one micro-batch."""

    def __post_init__(self) -> None:
        _require(1 <= self.window <= 6, "similarity.window must be 1 to 6")
        _require(self.k >= 1, "similarity.k must be at least 1")
        _require(self.half_life_days >= 0, "similarity.half_life_days must be at least 0 (0: no decay)")
        _require(self.min_baskets >= 1, "similarity.min_baskets must be at least 1")
        size_in_bytes(self.max_bytes_per_batch, "similarity.max_bytes_per_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendationSettings:
    """Who gets recommendations, from what, and what may be in them."""

    k: int = 10
    """Length of a user's list."""
    profile_items: int = 10
    """How many of a user's latest distinct products speak for the user."""
    profile_decay: float = 0.5
    """Weight of a profile item relative to the one before it, in (0, 1]."""
    view_weight: float = 1.0
    """Weight of a product that the user viewed."""
    cart_weight: float = 2.0
    """Weight of a product that the user put into the cart."""
    purchase_weight: float = 3.0
    """Weight of a product that the user purchased."""
    active_days: int = 30
    """Users with an interaction in the last so many days of the store get a list."""
    trend_weight: float = 1.0
    """How much a trend moves a score: times 1 + trend_weight·growth, 0 to 1."""
    repeat: Repeat = "exclude"
    """Products of the user's own profile: `exclude` them, `allow` them where they are neighbours of others, or
    recommend each once more as an `own-row` ("still interested?")."""
    own_weight: float = 1.0
    """What a profile item says for itself, with `own-row`, where a neighbour says its similarity: people come back to
    what they just looked at far more often than they go on to any one neighbour."""
    max_per_category: int = 0
    """Most products of one category in a list; 0: no limit. Products without a category are not limited."""
    filter: str = ""
    """An SQL predicate over `products`, like `price > 10`; only what fulfils it is recommended."""
    allow: tuple[int, ...] = ()
    """If any: only these product ids are recommended."""
    deny: tuple[int, ...] = ()
    """These product ids are never recommended."""

    def __post_init__(self) -> None:
        _require(1 <= self.k <= 1000, "recommendations.k must be 1 to 1000")
        _require(1 <= self.profile_items <= 1000, "recommendations.profile_items must be 1 to 1000")
        _require(0 < self.profile_decay <= 1, "recommendations.profile_decay must be above 0 and at most 1")
        for name in ("view_weight", "cart_weight", "purchase_weight", "own_weight"):
            _require(0 <= getattr(self, name) <= 1000, f"recommendations.{name} must be 0 to 1000")
        _require(self.active_days >= 1, "recommendations.active_days must be at least 1")
        _require(0 <= self.trend_weight <= 1, "recommendations.trend_weight must be 0 to 1")
        _require(self.max_per_category >= 0, "recommendations.max_per_category must be at least 0 (0: no limit)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSettings:
    """What `maintain` puts together, and what it lets go."""

    min_files: int = 10
    """A date (or a table without dates) with at least this many files is put into fewer."""
    retention: timedelta = timedelta(days=7)
    """Files that no version of the last so long needs are deleted; so far back can be read and restored."""
    expire_days: int = 0
    """Events more than this many days older than the newest event's date expire; 0: never."""

    def __post_init__(self) -> None:
        _require(self.min_files >= 2, "maintenance.min_files must be at least 2")
        _require(self.retention >= timedelta(hours=1), "maintenance.retention must be at least '1 hour'")
        _require(0 <= self.expire_days <= 100_000, "maintenance.expire_days must be at least 0 (0: never)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, by section."""

    ingest: IngestSettings = field(default_factory=IngestSettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    trends: TrendSettings = field(default_factory=TrendSettings)
    similarity: SimilaritySettings = field(default_factory=SimilaritySettings)
    recommendations: RecommendationSettings = field(default_factory=RecommendationSettings)
    maintenance: MaintenanceSettings = field(default_factory=MaintenanceSettings)


_SECTIONS = {section.name: section.default_factory for section in fields(Settings)}


def load_settings(conf_file: Path | None, assignments: Iterable[str] = ()) -> Settings:
    """The settings of a file, overridden by assignments like `trends.bucket=30 minutes`.

    Raises UsageError for a file that cannot be read, an unknown name, a wrong type, or a value out of range.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    if conf_file is not None:
        for section, entries in _read_toml(conf_file).items():
            _require(isinstance(entries, Mapping), f"{conf_file}: '{section}' must be a [section] of settings")
            for key, value in entries.items():
                _assign(values, section, key, value, f"{conf_file}: ")
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        section, dot, key = name.strip().partition(".")
        _require(bool(equals and dot), f"--set {assignment}: write it as section.key=value")
        _assign(values, section, key, value.strip(), "--set ")
    return Settings(**{section: factory(**values[section]) for section, factory in _SECTIONS.items()})  # type: ignore[operator]


def recorded(section: Any) -> dict[str, str]:
    """A section's settings as the texts that a table records: {setting: text}, readable back by `from_recorded`."""
    return {key: _text(value) for key, value in asdict(section).items()}


def from_recorded(section: type[Section], texts: Mapping[str, str]) -> Section:
    """A section's settings from the texts that a table recorded; a setting it did not record has its default."""
    hints = get_type_hints(section)
    return section(**{key: _convert(text, hints[key], key) for key, text in texts.items() if key in hints})


def size_in_bytes(text: str, name: str) -> int:
    """Bytes of a size like `512k`, `256m` or `1g`. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+)\s*([kmg]?)b?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise UsageError(f"{name} must be a size like '512k', '256m' or '1g', not '{text}'")
    return int(match[1]) * _SIZES[match[2]]


def parse_duration(text: str, name: str) -> timedelta:
    """A duration like `7 days`, `12 hours` or `30 minutes`. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,10})\s+(minute|hour|day)s?", text.strip().lower())
    if match is None or int(match[1]) > _LONGEST // _UNITS[match[2]]:
        raise UsageError(f"{name} must be a duration like '7 days', '12 hours' or '30 minutes', not '{text}'")
    return int(match[1]) * _UNITS[match[2]]


def check_trigger(text: str) -> str:
    """`available-now`, or an interval as Spark reads it. Raises UsageError for anything else."""
    if text == AVAILABLE_NOW or re.fullmatch(r"[1-9]\d{0,6} (second|minute|hour)s?", text):
        return text
    raise UsageError(f"'{text}' is neither '{AVAILABLE_NOW}' nor an interval like '10 seconds' or '5 minutes'")


def _read_toml(conf_file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(conf_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--conf-file {conf_file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--conf-file {conf_file}: not TOML: {error}") from error


def _assign(values: dict[str, dict[str, Any]], section: str, key: str, value: Any, origin: str) -> None:
    if section not in _SECTIONS:
        raise UsageError(f"{origin}unknown section '{section}'{_did_you_mean(section, _SECTIONS)}")
    hints = get_type_hints(_SECTIONS[section])
    if key not in hints:
        raise UsageError(f"{origin}unknown setting '{section}.{key}'{_did_you_mean(key, hints)}")
    values[section][key] = _convert(value, hints[key], f"{origin}{section}.{key}")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(known)}"


def _convert(value: Any, hint: Any, name: str) -> Any:
    """A value from TOML (typed) or from the command line (text) as the setting's type."""
    if hint is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise UsageError(f"{name} must be true or false, not '{value}'")
    if isinstance(value, bool):
        raise UsageError(f"{name} must not be true or false")
    if hint is int or hint is float:
        kind = "a whole number" if hint is int else "a number"
        try:
            if hint is int and isinstance(value, float):
                raise ValueError
            number = hint(value)
            if number != number or number in (float("inf"), float("-inf")):
                raise ValueError
            return number
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{name} must be {kind}, not '{value}'") from None
    if hint is date:
        return _convert_date(value, name)
    if hint is timedelta:
        return parse_duration(str(value), name)
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list) else [item for item in str(value).split(",") if item.strip()]
        kind = get_args(hint)[0]
        return tuple(_convert(item.strip() if isinstance(item, str) else item, kind, name) for item in items)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{name} must be one of {', '.join(get_args(hint))}, not '{value}'")
        return value
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text, not '{value}'")
    return value


def _convert_date(value: Any, name: str) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise UsageError(f"{name} must be a date like 2019-11-01, not '{value}'") from None


def _text(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"{value // timedelta(minutes=1)} minutes"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
