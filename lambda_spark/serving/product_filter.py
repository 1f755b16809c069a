"""The setting `recommendations.filter`: a predicate over `products` that can do nothing else."""

from __future__ import annotations

import re
from typing import Any

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import UsageError
from lambda_spark.storage.tables import PRODUCTS

_OPERATORS = (
    "Literal And Or Not EqualTo EqualNullSafe LessThan LessThanOrEqual GreaterThan GreaterThanOrEqual Between In "
    "IsNull IsNotNull Like ILike RLike LikeAll LikeAny NotLikeAll NotLikeAny UnaryMinus UnaryPositive Add Subtract "
    "Multiply Divide IntegralDivide Remainder Concat CaseWhen Cast Substring StringTrim"
)
_FUNCTIONS = (
    "abs between ceil ceiling char_length coalesce concat contains date date_add date_diff date_sub date_trunc "
    "datediff day dayofweek endswith floor greatest if ifnull instr isnotnull isnull least left length lower ltrim mod "
    "month nullif nvl regexp_like replace right round rtrim split_part startswith substr substring to_date trim "
    "try_divide upper year"
)


_CLOCK = "now|today|tomorrow|yesterday"
_MOMENTS = ("date", "timestamp")


def predicate(spark: SparkSession, text: str) -> Column:
    """A text like `price > 10 and brand is not null` as a condition.

    It is parsed, and each part of it must be known here: a column of `products`, a constant, an operator, or a function
    of its arguments alone. So it cannot read a table or a file, call Java, look at the clock or throw dice. Raises
    UsageError for anything else.
    """
    if "${" in text:
        # Spark would put the value of a variable there, also one of the environment.
        raise _refused("it may not refer to a variable (${…})")
    if re.search(rf"\b(date|timestamp\w*)\s*[rR]?['\"]\s*({_CLOCK})", text, re.IGNORECASE):
        raise _refused("it may not look at the clock")
    nothing = spark.range(0).select(*(F.lit(None).cast(one.type).alias(one.name) for one in PRODUCTS.columns))
    try:
        _check(spark._jsparkSession.sessionState().sqlParser().parseExpression(text))
        checked = nothing.where(F.expr(text))
    except (AnalysisException, ParseException) as error:
        raise _refused(next(line for line in str(error).splitlines() if line.strip())) from error
    _check_clock(checked._jdf.queryExecution().analyzed().condition())
    return F.expr(text)


def _check_clock(part: Any) -> None:
    """Refuse a text like 'today' where Spark makes a date or a time of it."""
    for at in range(part.children().size()):
        child = part.children().apply(at)
        is_moment = str(part.dataType().typeName()).startswith(_MOMENTS)
        if is_moment and child.foldable() and re.match(rf"\s*({_CLOCK})", str(child.eval(None)), re.IGNORECASE):
            raise _refused("it may not look at the clock")
        _check_clock(child)


def _check(part: Any) -> None:
    kind = part.getClass().getSimpleName()
    if kind == "UnresolvedAttribute":
        name = ".".join(_texts(part.nameParts()))
        if name.lower() not in PRODUCTS.column_names:
            raise _refused(f"products has no column {name}; it has {', '.join(PRODUCTS.column_names)}")
    elif kind == "UnresolvedFunction":
        name = ".".join(_texts(part.nameParts())).lower()
        if name not in _FUNCTIONS.split():
            raise _refused(f"the function {name} may not be used; these may: {', '.join(_FUNCTIONS.split())}")
    elif kind not in _OPERATORS.split():
        raise _refused(f"'{part}' may not be used ({kind})")
    for at in range(part.children().size()):
        _check(part.children().apply(at))


def _texts(sequence: Any) -> list[str]:
    return [str(sequence.apply(at)) for at in range(sequence.size())]


def _refused(reason: str) -> UsageError:
    return UsageError(f"recommendations.filter is no predicate over products: {reason}")
