"""What one warehouse answers of a training set: its views, compiled for it and run there.

A training set has one site where all of its views lie in one warehouse, and one for each warehouse
otherwise. Of the spine a site is sent the keys of its own views, and the instants if one of them
goes by time. What expressions make of features of several warehouses is computed by one site more,
the meeting place, whose spine are the answers of the others. See docs/adr/0009.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from virtualfs.cached import cached_property
from virtualfs.capabilities import UNKNOWN, Statistics, round_up
from virtualfs.compiler import quality, sql
from virtualfs.compiler.plan import GIVEN, FeaturePlan, Part
from virtualfs.compiler.program import Answer, Program, compile_training, spine_relation, with_head
from virtualfs.compiler.rows import ROW
from virtualfs.compiler.time_range import bind_range, has_range
from virtualfs.errors import UnsupportedByWarehouseError
from virtualfs.lookups import check_type
from virtualfs.provider import Session, Warehouse, bounded, temporary_name
from virtualfs.training.diagnosis import ViewDiagnosis
from virtualfs.training.spine import ClientSpine, SentSpine, Spine, WarehouseSpine

if TYPE_CHECKING:
    import pyarrow as pa

_BEYOND = 2**62
"""Microseconds after any instant."""

__all__ = ["Site", "check_in_query", "meeting_plan", "sites_of"]


def _plan_of(warehouse: str, plan: FeaturePlan) -> FeaturePlan:
    """Return the part of a plan that one of several warehouses answers: its views, whole."""
    parts = tuple(part for part in plan.parts if part.view.warehouse == warehouse)
    return FeaturePlan(parts, tuple(output for part in parts for _, output in part.outputs))


def meeting_plan(plan: FeaturePlan) -> FeaturePlan | None:
    """Return what is computed where the parts of several warehouses meet; None if nothing is.

    Answers of the parts are to it what request inputs are to others: columns of its spine.
    """
    items = tuple(item for item in plan.on_demand if item.view.function is None)
    if not items:
        return None
    dtypes = {**plan.all_dtypes(), **plan.request}
    read = {column: dtypes[column] for item in items for _, column in item.inputs}
    columns = tuple(output for item in items for _, output in item.outputs)
    return FeaturePlan((), columns, items, request=read)


@dataclass(frozen=True)
class Site:
    """The part of a training set that one warehouse answers.

    Parameters
    ----------
    plan
        What is answered here.
    spine
        The spine, as it lives here or comes here.
    timestamp
        The spine's column of instants.
    is_alone
        Whether there is no other site, so that what is written here is the whole result.
    """

    warehouse: Warehouse
    plan: FeaturePlan
    spine: Spine | SentSpine
    timestamp: str
    is_alone: bool = True

    @property
    def holds_spine(self) -> bool:
        """Whether the spine lives in this warehouse."""
        return isinstance(self.spine, WarehouseSpine)

    @property
    def has_work(self) -> bool:
        """Whether anything but the spine is read here."""
        return bool(self.plan.columns)

    @property
    def title(self) -> str:
        """The warehouse's name and engine."""
        return f"{self.warehouse.name!r} ({self.warehouse.capabilities.engine})"

    @cached_property
    def expected_rows(self) -> int | None:
        """How many rows the spine has, as far as it is known without running it."""
        if isinstance(self.spine, WarehouseSpine):
            return self.warehouse.estimate_rows(self.spine.sql)
        return self.spine.rows

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """What the catalog knows, asked for once, when first needed."""
        rows = round_up(self.expected_rows)
        return {
            part.view.fingerprint: replace(self.warehouse.statistics(part.view), spine_rows=rows)
            for part in self.plan.parts
        }

    @cached_property
    def program(self) -> Program:
        """The statements."""
        return self._compiled(self.statistics)

    def guessed(self) -> Program:
        """Return the statements as they would be if nothing were known of the tables."""
        return self._compiled({part.view.fingerprint: UNKNOWN for part in self.plan.parts})

    def _compiled(self, statistics: Mapping[str, Statistics]) -> Program:
        capabilities = self.warehouse.capabilities
        schema, select = {**self.plan.key_columns, **self.plan.request_columns}, None
        columns = self.spine.columns if self.is_alone else tuple(schema)
        if isinstance(self.spine, WarehouseSpine):
            schema = {name: str(self.spine.schema[name]).lstrip("!") for name in schema}
            select = self.spine.select(self.plan, self.timestamp, capabilities)
            columns = self.spine.columns
        return compile_training(
            self.plan,
            schema,
            capabilities,
            statistics,
            spine_sql=select,
            spine_columns=columns,
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session that a caller's deadline ends."""
        expr = getattr(self.spine, "expr", None)
        if expr is not None:  # what Ibis holds for an expression is registered with its connection
            self.warehouse.connection._run_pre_execute_hooks(expr)
        with self.warehouse.session(shared=expr is not None) as session, bounded(session):
            yield session

    # -- the spine

    def sent(self, rows: ClientSpine) -> pa.Table:
        """Return what this warehouse is sent of rows that the client holds."""
        return rows.narrow(self.plan, self.timestamp, self.warehouse.capabilities.instant_type)

    def spine_pieces(
        self, session: Session, rows: int | None
    ) -> Iterator[tuple[pa.Table, str | None]]:
        """Evaluate the spine that lives here once; yield its columns, and the table of each piece.

        There is no table where the warehouse has no temporary ones.

        Parameters
        ----------
        rows
            How many rows a piece has at most; None is all in one.
        """
        program, name = self.program, temporary_name()
        if program.is_one_statement:
            statement = program.statement(program.ordered_spine(), "")
            if rows is None:
                tables = iter([session.query(statement, self.spine_types)])
            else:
                tables = session.stream(statement, self.spine_types, rows)
            for table in tables:
                yield table.rename_columns([*self.spine.columns]), None
            return
        session.keep(name, program.spine or "")
        if rows is not None:
            counted = session.query(program.statement(program.count(), name), {"n": "int64"})
            count = counted.column(0)[0].as_py()
            if count > rows:
                for start in range(0, count, rows):
                    part = temporary_name()
                    within = program.slice(start, start + rows)
                    session.keep(part, program.statement(within, name))
                    yield self._own_columns(session, part), part
                    session.drop(part)
                return
        yield self._own_columns(session, name), name

    def _own_columns(self, session: Session, name: str) -> pa.Table:
        statement = self.program.statement(self.program.ordered_spine(), name)
        return session.query(statement, self.spine_types).rename_columns([*self.spine.columns])

    @property
    def spine_types(self) -> dict[str, str]:
        """The columns of a spine that lives here, with their data types."""
        assert isinstance(self.spine, WarehouseSpine)
        return {name: str(dtype).lstrip("!") for name, dtype in self.spine.schema.items()}

    def spine_table(self, session: Session) -> tuple[str, pa.Table]:
        """Put the whole spine into a temporary table; return its name and the spine's columns."""
        if self.holds_spine:
            ((own, kept),) = self.spine_pieces(session, None)
            assert kept is not None
            return kept, own
        assert not isinstance(self.spine, SentSpine | WarehouseSpine)
        whole, name = self.spine.whole(), temporary_name()
        session.load(name, self.sent(whole))
        return name, whole.arrow(self.spine.columns)

    def whole_spine(self, session: Session) -> str:
        """Put the spine with all of its own columns into a temporary table; return its name."""
        assert not isinstance(self.spine, SentSpine)
        name = temporary_name()
        if isinstance(self.spine, WarehouseSpine):
            session.keep(name, self.program.spine or "")
        else:
            instants = self.warehouse.capabilities.instant_type
            whole = self.spine.whole()
            session.load(name, whole.narrow(self.plan, self.timestamp, instants, whole.columns))
        return name

    # -- the answers

    def answer(self, session: Session, answer: Answer, spine: str) -> dict[str, Any]:
        """Return the columns of one answer for a spine table, in the order of its rows."""
        dtypes = self.plan.all_dtypes()
        types = {name: dtypes[name] for name in answer.outputs}
        table = session.query(self.statement(session, answer.select, spine), types)
        columns = dict(zip(answer.outputs, table.columns, strict=True))
        for name, column in columns.items():
            check_type(name, column.type, types[name])
        return columns

    def statement(self, session: Session, select: str, spine: str) -> str:
        """Return a SELECT ready to run on a spine table, its range of time bound."""
        text = self.program.statement(select, spine)
        if not has_range(text):
            return text
        times = {"first": "int64", "last": "int64"}
        ends = session.query(self.program.statement(self.program.time_range(), spine), times)
        first, last = (ends.column(name).cast("int64")[0].as_py() for name in times)
        return bind_range(text, first, last)

    def engine_plans(self) -> list[str]:
        """Return the engine's own plan of each answer's statement."""
        program, name = self.program, temporary_name()
        with self.session() as session:
            if self.holds_spine:
                spine = f"WITH {sql.quoted(name, program.dialect)} AS (\n{program.spine}\n)\n"
                head = "" if program.head else spine
            else:
                if isinstance(self.spine, SentSpine | WarehouseSpine) or self.spine.rows is None:
                    unread = "the plan is not asked for: the spine's rows have not been read yet"
                    return [unread] * len(program.answers)
                session.load(name, self.sent(self.spine.whole()))
                head = ""
            return [
                session.explain(with_head(head, self._shown(session, answer.select, name)))
                for answer in program.answers
            ]

    def _shown(self, session: Session, select: str, spine: str) -> str:
        """Return a statement whose plan is asked for; a spine that is not run has no range."""
        if self.holds_spine:
            return bind_range(self.program.statement(select, spine), -_BEYOND, _BEYOND)
        return self.statement(session, select, spine)

    # -- why values are missing

    def diagnosed(self, samples: int) -> dict[Part, ViewDiagnosis]:
        """Count, view by view and here, why values are missing.

        Raises
        ------
        UnsupportedByWarehouseError
            The spine is SQL, and there are no temporary tables.
        """
        if not self.plan.parts:
            return {}
        if self.program.is_one_statement:
            raise UnsupportedByWarehouseError(
                f"{self.warehouse.capabilities.engine}: a diagnosis of a spine in SQL needs "
                "temporary tables; pass the spine as a table"
            )
        with self.session() as session:
            name, rows = self.spine_table(session)
            return {
                part: self._diagnosed(session, part, name, rows, samples)
                for part in self.plan.parts
            }

    def _diagnosed(
        self, session: Session, part: Part, spine: str, rows: pa.Table, samples: int
    ) -> ViewDiagnosis:
        capabilities = self.warehouse.capabilities
        types = dict(zip(part.key_columns, part.view.join_keys.values(), strict=True))
        relation = spine_relation(types, capabilities)
        selects = [
            self.program.statement(select, spine)
            for select in quality.reasons(relation, part, capabilities, samples)
        ]
        outputs = [output for _, output in part.outputs]
        schema = {"__reason": "string", quality.COUNT: "int64"}
        schema |= {f"__nulls_{number}": "int64" for number in range(len(outputs))}
        counts = session.query(selects[0], schema).to_pylist()
        some = session.query(selects[1], {"__reason": "string", ROW: "int64"}).to_pylist()
        shown = [*part.key_columns, *([self.timestamp] if self.plan.needs_time else [])]
        by_reason: dict[str, list[dict[str, Any]]] = {}
        for row in some:
            if row["__reason"] != "present":
                values = rows.select(shown).slice(row[ROW], 1).to_pylist()
                by_reason.setdefault(row["__reason"], []).extend(values)
        found = {row["__reason"]: row[quality.COUNT] for row in counts}
        nulls = {
            feature if output.startswith(GIVEN) else output: sum(
                row[f"__nulls_{number}"] for row in counts
            )
            for number, (feature, output) in enumerate(part.outputs)
        }
        ordered = {reason: found[reason] for reason in quality.REASONS if reason in found}
        return ViewDiagnosis(part.view.label, ordered, nulls, by_reason)


def sites_of(
    plan: FeaturePlan,
    spine: Spine,
    timestamp: str,
    home: Warehouse,
    warehouse: Callable[[str], Warehouse],
) -> tuple[Site, ...]:
    """Return the sites of a training set, that of a spine in SQL first.

    Parameters
    ----------
    home
        Where a spine in SQL lives.
    warehouse
        Returns a warehouse by its name.
    """
    names = list(dict.fromkeys(part.view.warehouse for part in plan.parts)) or [home.name]
    lives = isinstance(spine, WarehouseSpine)
    if len(names) == 1 and (not lives or names == [home.name]):
        return (Site(home, plan, spine, timestamp),)
    plans = {name: _plan_of(name, plan) for name in names}
    sites: list[Site] = []
    sent: Spine | SentSpine = spine
    if isinstance(spine, WarehouseSpine):
        # Without temporary tables its rows are read, and come back as those of a client.
        here = FeaturePlan((), ())
        if home.capabilities.temporary_tables:
            here = plans.pop(home.name, here)
        first = Site(home, here, spine, timestamp, is_alone=False)
        sites.append(first)
        sent = SentSpine(spine.columns, lambda: first.expected_rows)
    sites += [
        Site(warehouse(name), part, sent, timestamp, is_alone=False) for name, part in plans.items()
    ]
    return tuple(sites)


def check_in_query(plan: FeaturePlan) -> None:
    """Refuse features that no query can hold.

    Raises
    ------
    UnsupportedByWarehouseError
        One is computed by a Python function.
    """
    for item in plan.on_demand:
        if item.view.function is not None:
            raise UnsupportedByWarehouseError(
                f"on-demand feature view {item.view.label} is computed by the Python function "
                f"{item.view.function}, which no query can hold; use to_pandas(), to_pyarrow() "
                "or to_parquet()"
            )
