"""Maps the columns of a store's log to the fields of an event, as a source description says."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StringType, StructType

from lambda_spark.errors import UsageError
from lambda_spark.event_format import REQUIRED
from lambda_spark.source_description import DESCRIBED_FIELDS, SourceDescription
from lambda_spark.spark import refuse_impure

INTERNAL = "__"
"""Prefix of the columns that the project adds to a record, such as `__raw`. A log's own columns keep their names."""

Path = tuple[str, ...]


class FieldMapping:
    """The expressions of a source description, checked before anything is read.

    Raises:
        UsageError: An expression cannot be parsed, depends on more than the record, or contradicts another one.
    """

    def __init__(self, spark: SparkSession, description: SourceDescription) -> None:
        self.description = description
        self._spark = spark
        self._texts = {name: text for name, text in description.fields.items() if text.strip()}
        self._disabled = {name for name, text in description.fields.items() if not text.strip()}
        self._paths = {name: self._references(name, text) for name, text in self._texts.items()}
        self.explode: Path = self._explode()
        self.labels = {name: self._label(name) for name in DESCRIBED_FIELDS}
        """The name that rejection reasons use for each field: the log's own column, or the field's name."""
        self._check()

    @property
    def referenced(self) -> list[Path]:
        """The distinct paths that the expressions name, each as the parts of its name."""
        return sorted({path for paths in self._paths.values() for path in paths})

    @property
    def unmapped(self) -> list[str]:
        """The fields without an expression. They are read from columns of their own names, where a file has them."""
        return [name for name in DESCRIBED_FIELDS if name not in self._texts and name not in self._disabled]

    def columns_in(self, available: Iterable[str]) -> dict[str, str]:
        """Find the columns of a file that the mapping needs.

        A name that no column has exactly is compared without regard to case.

        Args:
            available: Names of the file's columns.

        Returns:
            The needed column by the name that the mapping has for it.

        Raises:
            UsageError: A named column or a required field is missing, or two columns differ only in case.
        """
        names = list(available)
        by_lower: dict[str, list[str]] = {}
        for name in names:
            by_lower.setdefault(name.lower(), []).append(name)
        found: dict[str, str] = {}
        for name in dict.fromkeys([*(path[0] for path in self.referenced), *self.unmapped]):
            same = [column for column in names if column == name] or by_lower.get(name.lower(), [])
            if len(same) > 1:
                raise UsageError(f"column {name} appears more than once")
            if same:
                found[name] = same[0]
        missing = [path[0] for path in self.referenced if path[0] not in found]
        missing += [name for name in REQUIRED if name in self.unmapped and name not in found]
        if missing:
            raise UsageError(_missing_columns(list(dict.fromkeys(missing)), names))
        return found

    def json_schema(self) -> StructType:
        """Return the schema with which a JSON record is read: every needed path, with a text at its end."""
        tree: dict[str, Any] = {}
        for path in [*self.referenced, *((name,) for name in self.unmapped)]:
            node = tree
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node.setdefault(path[-1], {})
        return _struct(tree, self.explode)

    def fields(self, records: DataFrame) -> DataFrame:
        """Compute the fields of each record.

        Args:
            records: The needed columns of the log, and columns that begin with INTERNAL.

        Returns:
            The internal columns, and each of DESCRIBED_FIELDS as a text.
        """
        internal = [name for name in records.columns if name.startswith(INTERNAL)]
        present = {name.lower() for name in records.columns}
        if self.explode:
            records = _exploded(records, self.explode)
            internal.append(f"{INTERNAL}position")
        # Ask Spark for the types of all fields at once, because each question analyses the whole query.
        typed = records.select(*internal, *(self._value(name, present).alias(name) for name in DESCRIBED_FIELDS))
        kinds = {column.name: column.dataType for column in typed.schema}
        return typed.select(*internal, *(_as_text(F.col(name), kinds[name]).alias(name) for name in DESCRIBED_FIELDS))

    def _value(self, name: str, present: set[str]) -> Column:
        if name in self._texts:
            return F.expr(self._texts[name])
        if name in self._disabled or name.lower() not in present:
            return F.lit(None).cast("string")
        return F.col(f"`{name}`")

    def _references(self, name: str, text: str) -> list[Path]:
        parser: Any = self._spark._jsparkSession.sessionState().sqlParser()
        try:
            expression = parser.parseExpression(text)
        except Exception as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), "")
            raise UsageError(f'source.fields.{name} = "{text}" is no Spark SQL expression: {reason}') from None
        return sorted(set(_attributes(expression)))

    def _explode(self) -> Path:
        return self._references("explode", self.description.explode)[0] if self.description.explode else ()

    def _label(self, name: str) -> str:
        """Return the log's own name for a field where the expression is just a column or a path."""
        text = self._texts.get(name, name).replace("`", "").strip()
        paths = self._paths.get(name, [])
        return text if len(paths) == 1 and ".".join(paths[0]) == text else name

    def _check(self) -> None:
        leaves = set(self.referenced)
        for path in leaves:
            for length in range(1, len(path)):
                prefix = path[:length]
                if prefix in leaves and prefix != self.explode:
                    raise UsageError(
                        f"source.fields uses both {'.'.join(prefix)} and {'.'.join(path)}: name only values inside"
                    )
        missing = [name for name in ("event_time", "event_type", "product_id") if name in self._disabled]
        if missing:
            raise UsageError(f"source.fields.{missing[0]} is empty, but every event needs this field")
        empty = self._spark.createDataFrame([], self.json_schema())
        empty = _exploded(empty, self.explode) if self.explode else empty
        for name, text in self._texts.items():
            try:
                refuse_impure(self._spark, empty, text, f'source.fields.{name} = "{text}"')
            except (AnalysisException, ParseException) as error:
                if self.description.format in ("parquet", "delta") or not self.description.format:
                    continue  # The types of a Parquet file are known only when the file is read.
                reason = next(line for line in str(error).splitlines() if line.strip())
                raise UsageError(
                    f'source.fields.{name} = "{text}" is no expression over the columns: {reason}'
                ) from None


def _attributes(expression: Any) -> Iterable[Path]:
    """Return the column names in a parsed expression, each as the parts of its name."""
    if expression.getClass().getSimpleName() == "UnresolvedAttribute":
        parts = expression.nameParts()
        yield tuple(str(parts.apply(at)) for at in range(parts.size()))
        return
    children = expression.children()
    for at in range(children.size()):
        yield from _attributes(children.apply(at))


def _struct(tree: Mapping[str, Any], explode: Path) -> StructType:
    schema = StructType()
    for name, node in tree.items():
        rest = explode[1:] if explode and explode[0] == name else ()
        kind: DataType = _struct(node, rest) if node else StringType()
        if explode == (name,):
            kind = ArrayType(kind)
        schema.add(name, kind)
    return schema


def _exploded(records: DataFrame, path: Path) -> DataFrame:
    """Return one row per element of an array. The element takes the array's place; `__position` counts from 0."""
    array = ".".join(f"`{part}`" for part in path)
    others = [name for name in records.columns if name != path[0]]
    rows = records.select("*", F.posexplode_outer(array).alias(f"{INTERNAL}position", f"{INTERNAL}element"))
    element = F.col(f"{INTERNAL}element")
    if len(path) > 1:
        inside = ".".join(f"`{part}`" for part in path[1:])
        element = F.col(f"`{path[0]}`").withField(inside, element)
    return rows.select(*(F.col(f"`{name}`") for name in others), element.alias(path[0]), F.col(f"{INTERNAL}position"))


def _as_text(value: Column, kind: DataType) -> Column:
    """Turn a typed value into a text. Floating-point numbers that are whole get no exponent and no `.0`."""
    if kind.typeName() in ("double", "float"):
        whole = value.try_cast("bigint")
        is_whole = (whole.cast("double") == value) & (F.abs(value) < F.lit(2.0**53))
        return F.when(is_whole, whole.cast("string")).otherwise(value.cast("string"))
    if kind.typeName() in ("struct", "array", "map"):
        return F.to_json(value)
    return value.cast("string")


def _missing_columns(missing: list[str], names: list[str]) -> str:
    """Say which columns are missing. Quote only names of letters, because a first line may hold personal data."""
    known = [name for name in names if name.replace("_", "").replace(" ", "").isalpha()]
    near = [close[0] for name in missing if (close := difflib.get_close_matches(name, known, n=1))]
    hint = f"; the nearest is {', '.join(near)}" if near else ""
    listed = f" ({', '.join(known)[:200]})" if known else ""
    return f"no column {', '.join(missing)} among its {len(names)} columns{listed}{hint}"
