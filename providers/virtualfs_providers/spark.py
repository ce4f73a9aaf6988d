"""Apache Spark 4, in this process, on a cluster, or through Spark Connect.

Instants are integers of microseconds, so that neither the session's time zone nor Spark's two kinds
of timestamp can change an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from virtualfs import config
from virtualfs.capabilities import (
    Capabilities,
    Lexis,
    Statistics,
    literal_micros,
    round_up,
    same_micros,
    shift_micros,
)
from virtualfs.compiler import sql
from virtualfs.compiler.allow_list import FunctionCatalog, Kind
from virtualfs.compiler.judge import function_by_name
from virtualfs.compiler.plan import ResolvedView
from virtualfs.errors import (
    ConfigError,
    UnsupportedByWarehouseError,
    WarehouseError,
    did_you_mean,
    without_secrets,
)
from virtualfs.provider import (
    OneConnection,
    SessionLookups,
    SilentCatalog,
    TemporaryTables,
    named_once,
)

if TYPE_CHECKING:
    import ibis.expr.datatypes as dt
    import ibis.expr.types as ir
    import pyarrow as pa

__all__ = ["CAPABILITIES", "PROVIDER", "instant", "row_hash", "row_number"]

_UTC = "timestamp('UTC', 6)"


def instant(value: ir.Value, timezone: str, rounding: Literal["up", "down"]) -> ir.Value:  # noqa: ARG001
    """Write a time column as microseconds since 1970 in UTC; Spark has nothing finer.

    A naive time is read as text with its zone behind it, because every other way reads it in the
    session's zone. Of a wall time that occurs twice Spark reads the earlier instant, VirtualFS the
    later.
    """
    kind = value.type()
    micros = sql.builtin("unix_micros", (_UTC,), "int64")
    if kind.is_timestamp() and kind.timezone is not None:
        return sql.builtin("unix_micros", (sql.type_text(value),), "int64")(value)
    if kind.is_date():
        if timezone == "UTC":
            days = sql.builtin("unix_date", ("date",), "int64")(value)
            return days * 86_400_000_000
        value = value.cast("timestamp(6)")
    text = sql.builtin("string", (sql.type_text(value),), "string")
    read = sql.builtin("timestamp", ("string",), _UTC)

    def reading(wall: ir.Value) -> ir.Value:
        return micros(read(text(wall) + f" {'Z' if timezone == 'UTC' else timezone}"))

    repeated = _repeated(timezone)
    if repeated is None:
        return reading(value)
    import ibis

    hours = repeated // timedelta(microseconds=1)
    later = reading(value + ibis.interval(microseconds=hours)) - hours
    earlier = reading(value)
    return (later > earlier).ifelse(later, earlier)


@cache
def _repeated(timezone: str) -> timedelta | None:
    """Return by how much a zone's clocks are set back since 1970; None where they never are."""
    zone = ZoneInfo(timezone)
    steps = set()
    moment, before = datetime(1970, 1, 1), None
    while moment.year < 2040:
        offset = moment.replace(tzinfo=ZoneInfo("UTC")).astimezone(zone).utcoffset()
        assert offset is not None
        if before is not None and offset < before:
            steps.add(before - offset)
        before = offset
        moment += timedelta(days=7)
    if len(steps) > 1:
        raise UnsupportedByWarehouseError(
            f"Spark cannot tell which of two instants a repeated wall time of {timezone} means, "
            "because its clocks were set back by different amounts; store instants in UTC"
        )
    return steps.pop() if steps else None


def row_hash(values: Sequence[ir.Value]) -> ir.Value:
    """Hash columns with Spark's 64-bit hash."""
    import ibis

    with suppress(ImportError):
        ibis.pyspark  # noqa: B018 - its compiler reads options that loading the backend makes
    types = tuple(sql.type_text(value) for value in values)
    return sql.builtin("xxhash64", types, "int64")(*values)


def collect(value: ir.Value, place: ir.Value, where: ir.Value) -> ir.Value:
    """Collect values in order; Spark sorts what it has collected, by what stands first in it."""
    import ibis

    pairs = ibis.struct({"place": -place, "value": value}).collect(where=where)
    values = pairs.sort().map(lambda pair: pair["value"])
    return (pairs.length() == 0).ifelse(ibis.null(values.type()), values)


def row_number() -> ir.Value:
    """Count the rows of an ordered query by the ids that Spark gives them in that order."""
    import ibis

    place = sql.builtin("monotonically_increasing_id", (), "int64")()
    return ibis.row_number().over(order_by=place)


LEXIS = Lexis(
    name_quotes={"`": "`"},
    string_quotes="'\"",
    string_escapes=True,
    string_prefixes={"r": False, "x": False},
    nested_comments=True,
    parameters="?",
    refused=("${",),
)
CAPABILITIES = Capabilities(
    engine="Spark",
    dialect="spark",
    lexis=LEXIS,
    compiler="pyspark",
    instant=instant,
    row_hash=row_hash,
    instant_type="int64",
    literal_instant=literal_micros,
    shift=shift_micros,
    micros=same_micros,
    prefix_sums=True,
    collect=collect,
    row_number=row_number,
)


class SparkSession(TemporaryTables):
    """Statements of one Spark session; its temporary views have names of their own."""

    def __init__(self, session: Any) -> None:
        self._session = session
        super().__init__()

    def load(self, name: str, table: pa.Table) -> None:
        """Hand Arrow rows to Spark as they are, as a temporary view."""
        from pyspark.sql.pandas.types import from_arrow_schema

        self._tables.add(name)
        with _readable():
            # Said outright, because Spark takes naive times for ones of the session's zone.
            schema = from_arrow_schema(table.schema, prefer_timestamp_ntz=True)
            self._session.createDataFrame(table, schema).createOrReplaceTempView(name)

    def keep(self, name: str, select: str) -> None:
        """Evaluate a SELECT once, into a cached temporary view."""
        self._tables.add(name)
        self.execute(f"CACHE TABLE {sql.quoted(name, 'spark')} AS {select}")

    def _drop(self, name: str) -> None:
        """Forget a temporary view and what is cached of it."""
        with _readable():
            self._session.sql(f"UNCACHE TABLE IF EXISTS {sql.quoted(name, 'spark')}")
            self._session.catalog.dropTempView(name)

    def execute(self, statement: str) -> None:
        """Run a statement that returns nothing."""
        with _readable():
            self._session.sql(statement)

    def query(self, statement: str, schema: Mapping[str, str]) -> pa.Table:  # noqa: ARG002
        """Run a SELECT and return all of its rows."""
        with _readable():
            return self._session.sql(statement).toArrow()

    def stream(
        self, statement: str, schema: Mapping[str, str], rows: int  # noqa: ARG002
    ) -> Iterator[pa.Table]:  # fmt: skip
        """Run a SELECT and return its rows at once: there are always temporary views here."""
        yield self.query(statement, schema)

    def explain(self, statement: str) -> str:
        """Return Spark's plan of a SELECT, without running it."""
        with _readable():
            rows = self._session.sql(f"EXPLAIN FORMATTED {statement}").collect()
        return "\n".join(row[0] for row in rows)


class SparkWarehouse(OneConnection, SessionLookups, SilentCatalog):
    """One Spark session."""

    capabilities = CAPABILITIES

    _functions: FunctionCatalog | None = None

    @property
    def functions(self) -> FunctionCatalog:
        """Spark's own functions; those that users registered may do anything."""
        if self._functions is None:
            with _readable():
                listed = self._session.catalog.listFunctions()
            self._functions = FunctionCatalog.of(
                (
                    (each.name, function_by_name(each.name, _kind(each.className)))
                    for each in listed
                    if (each.className or "").startswith("org.apache.spark.sql.catalyst.")
                ),
                is_complete=False,
            )
        return self._functions

    @property
    def _session(self) -> Any:
        return self.connection._session

    @contextmanager
    def session(self, *, shared: bool = False) -> Iterator[SparkSession]:  # noqa: ARG002
        """Open a session; all share Spark's own, and their views have names of their own."""
        session = SparkSession(self._session)
        try:
            yield session
        finally:
            session.drop_all()

    def describe(self, select: str) -> Mapping[str, dt.DataType]:
        """Return the columns and types of a SELECT, which is analysed and not run."""
        with _readable(self.table_names):
            fields = self._session.sql(select).schema.fields
        found = ((field.name, _ibis_type(field.dataType)) for field in fields)
        return named_once(found, folds_case=True)

    def statistics(self, view: ResolvedView) -> Statistics:
        """Return the row count that the optimizer knows, if it knows one."""
        return Statistics(rows=round_up(self.estimate_rows(view.rows_sql)))

    def estimate_rows(self, select: str) -> int | None:
        """Return how many rows Spark's optimizer expects; it knows where tables are analysed."""
        with suppress(WarehouseError, AttributeError), _readable():
            plan = self._session.sql(select)._jdf.queryExecution().optimizedPlan()
            count = plan.stats().rowCount()
            return int(str(count.get())) if count.isDefined() else None
        return None

    def table_names(self) -> Sequence[str]:
        """Return the names of the tables and views, for messages."""
        with _readable():
            return [row.tableName for row in self._session.sql("SHOW TABLES").collect()]

    def ping(self) -> None:
        """Raise WarehouseError unless the session answers."""
        with self.session() as session:
            session.query("SELECT 1 AS one", {"one": "int32"})


def _ibis_type(spark_type: Any) -> dt.DataType:
    """Return a column's type; Ibis takes Spark's instants for naive timestamps."""
    import ibis.expr.datatypes as dt
    from ibis.backends.pyspark.datatypes import PySparkType

    if spark_type.typeName() == "timestamp":
        return dt.Timestamp(timezone="UTC", scale=6)
    return PySparkType.to_ibis(spark_type, nullable=True)


def _kind(class_name: str) -> Kind | None:
    """Return what a function is over, by the class that Spark computes it with.

    None where it is over one row, or gives rows, which its name tells.
    """
    if ".aggregate." in class_name:
        return "aggregate"
    return "window" if class_name.rpartition(".")[2] in _WINDOW_CLASSES else None


_WINDOW_CLASSES = frozenset(
    ("CumeDist", "DenseRank", "Lag", "Lead", "NTile", "NthValue", "PercentRank", "Rank",
     "RowNumber")
)


class SparkProvider:
    """Opens ``spark://MASTER`` URLs: ``spark://local[4]``, ``spark://host:7077``, ``spark://yarn``."""

    def open(
        self, name: str, settings: config.Warehouse, url: str, folder: Path,  # noqa: ARG002
        roots: Sequence[str] = (),  # noqa: ARG002
    ) -> SparkWarehouse:  # fmt: skip
        """Start a session on a master, or join the one that this process has.

        Raises
        ------
        ConfigError
            PySpark is not installed.
        WarehouseError
            Spark does not start, for example for lack of Java 17.
        """
        try:
            import ibis
            from pyspark.sql import SparkSession as Session
        except ModuleNotFoundError:
            raise ConfigError("Spark needs pyspark; pip install 'virtualfs[spark]'") from None
        master = url.partition("://")[2]
        if ":" in master and not master.startswith("local"):
            master = f"spark://{master}"
        with _readable():
            session = (
                Session.builder.master(master)
                .appName("virtualfs")
                .config("spark.sql.session.timeZone", "UTC")
                .getOrCreate()
            )
            connection = ibis.pyspark.connect(session)
        return SparkWarehouse(name, connection, _refuse_in_child)

    def adopt(self, name: str, connection: Any) -> SparkWarehouse:
        """Use the caller's Ibis connection as it is."""
        return SparkWarehouse(name, connection)


def _refuse_in_child() -> Any:
    raise WarehouseError(
        "Spark: the session belongs to the process that this one was forked from, and Spark has "
        "one driver. Start processes by spawn or forkserver, or open the store after the fork"
    )


@contextmanager
def _readable(table_names: Any = None) -> Iterator[None]:
    """Turn Spark's errors into ours, with what to do next."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException, PySparkRuntimeError

    try:
        yield
    except PySparkRuntimeError as error:
        raise WarehouseError(f"Spark: {_first_line(error)}; Spark 4 needs Java 17 or 21") from None
    except PySparkException as error:
        text = _first_line(error)
        if table_names is not None and error.getCondition() == "TABLE_OR_VIEW_NOT_FOUND":
            wanted = text.split("`")[1]
            text = f"there is no table {wanted!r}. {did_you_mean(wanted, table_names())}"
        raise WarehouseError(f"Spark: {text}") from error
    except Py4JError as error:  # raised past Spark's own errors while results are collected
        causes = [line for line in str(error).splitlines() if line.startswith("Caused by: ")]
        text = causes[-1].removeprefix("Caused by: ") if causes else _first_line(error)
        raise WarehouseError(f"Spark: {without_secrets(text)}") from error


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return without_secrets(lines[0] if lines else type(error).__name__)


PROVIDER = SparkProvider()
