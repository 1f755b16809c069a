"""The setting `recommendations.filter`: a condition on the columns of `products`."""

from __future__ import annotations

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from lambda_spark.errors import UsageError
from lambda_spark.ids import Ids
from lambda_spark.spark import refuse_impure
from lambda_spark.storage.tables import PRODUCTS


def predicate(spark: SparkSession, text: str, ids: Ids) -> Column:
    """Turn a text like `price > 10 and brand is not null` into a condition.

    The store's operator writes the text. Any expression is allowed whose result depends on the product alone. If the
    result depended on anything else, the job `verify` could not recompute the lists.

    Args:
        spark: The session that parses the text.
        text: A Spark SQL expression.
        ids: The kind of the product ids.

    Returns:
        A boolean column over `products`.

    Raises:
        UsageError: The text is no condition, or names a column that `products` lacks. Or it has a subquery or a
            variable, or depends on the clock, the user or chance.
    """
    schema = ", ".join(f"{column.name} {column.type}" for column in PRODUCTS.columns_for(ids))
    # Do not use `spark.range` here, because the filter could then name the hidden column `id` of `spark.range`.
    no_products = spark.createDataFrame([], schema)
    try:
        no_products.where(F.expr(text))
        refuse_impure(spark, no_products, text, "")
    except (AnalysisException, ParseException) as error:
        raise _refused(next(line for line in str(error).splitlines() if line.strip())) from error
    except UsageError as error:
        raise _refused(str(error).removeprefix(": ")) from None
    return F.expr(text)


def _refused(reason: str) -> UsageError:
    columns = ", ".join(PRODUCTS.column_names)
    return UsageError(f"recommendations.filter is no condition on products: {reason}. The columns are {columns}")
