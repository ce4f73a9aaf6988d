"""Running a training set piece by piece: each warehouse answers its part, side by side.

A piece is some rows of the spine. Its answers come in the order of the rows' ids, one for each, and
are laid beside each other; so what is held at once is one piece and its answers, however long the
spine is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.plan import FeaturePlan
from virtualfs.errors import WarehouseError
from virtualfs.functions import PythonFunctions
from virtualfs.progress import Progress
from virtualfs.provider import Session, temporary_name
from virtualfs.training.site import Site, check_in_query
from virtualfs.training.spine import ClientSpine, SentSpine, WarehouseSpine
from virtualfs.training.spine_fit import request_column

if TYPE_CHECKING:
    import pyarrow as pa

    Piece = tuple[ClientSpine | None, pa.Table, pa.Table]
    """The client's own rows (None for a spine in a warehouse), the spine's columns as Arrow, and
    the features' columns, all of one length."""

__all__ = ["answers", "run"]

Columns = dict[str, Any]
_AGAIN = 0.2
"""Seconds after which a statement that should stop is told so again."""


def run(
    sites: Sequence[Site],
    meeting: Site | None,
    plan: FeaturePlan,
    functions: PythonFunctions,
    rows: int | None,
) -> Iterator[Piece]:
    """Run a training set and yield it in pieces of at most `rows` spine rows; None is all at once.

    Parameters
    ----------
    sites
        The warehouses' parts; the first has the spine, if that lives in a warehouse.
    meeting
        What is computed of their answers, if anything is.
    plan
        The whole plan.
    """
    with ExitStack() as stack:
        progress = stack.enter_context(Progress())
        sessions = []
        for site in sites:
            with _named(site):
                sessions.append(stack.enter_context(site.session()))
        if len(sites) == 1 and sites[0].program.is_one_statement:
            yield from _one_statement(sites[0], sessions[0], plan, rows)
            return
        # One pool for all pieces: what a thread has allocated may stay when it ends.
        pool = stack.enter_context(ThreadPoolExecutor(len(sites), "virtualfs-site"))
        at_meeting = None if meeting is None else stack.enter_context(meeting.session())
        for client, own, table in _spine_pieces(sites[0], sessions[0], rows):
            held = client or ClientSpine(own, tuple(own.column_names))
            columns = _side_by_side(pool, sites, sessions, held, table, progress)
            if meeting is not None and at_meeting is not None:
                met = _met(columns, own, meeting.plan, plan)
                columns |= answers(meeting, at_meeting, met, None, progress)
            _call_functions(plan, functions, columns, own)
            _check_lengths(columns, own.num_rows)
            yield client, own, _table(plan.columns, columns)


def _table(names: Sequence[str], columns: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: columns[name] for name in names})


def _spine_pieces(
    site: Site, session: Session, rows: int | None
) -> Iterator[tuple[ClientSpine | None, pa.Table, str | None]]:
    """Yield the rows as the client holds them, as Arrow, and the table that has them at `site`."""
    spine = site.spine
    assert not isinstance(spine, SentSpine)
    if isinstance(spine, WarehouseSpine):
        for own, table in site.spine_pieces(session, rows):
            yield None, own, table
        return
    for piece in [spine.whole()] if rows is None else spine.pieces(rows):
        yield piece, piece.arrow(spine.columns), None


def answers(
    site: Site, session: Session, rows: ClientSpine, table: str | None, progress: Progress
) -> Columns:
    """Return the columns that one site answers for some rows, which `table` has if it is given."""
    if not site.has_work:
        return {}
    name = table
    if name is None:
        name = temporary_name()
        session.load(name, site.sent(rows))
    columns: Columns = {}
    for answer in progress.over(site.program.answers):
        columns |= site.answer(session, answer, name)
    if table is None:
        session.drop(name)
    return columns


def _side_by_side(
    pool: ThreadPoolExecutor,
    sites: Sequence[Site],
    sessions: Sequence[Session],
    rows: ClientSpine,
    table: str | None,
    progress: Progress,
) -> Columns:
    """Let all sites answer at once; only those that share a connection go one after the other."""
    if len(sites) == 1:
        return answers(sites[0], sessions[0], rows, table, progress)
    lines: dict[int, _Line] = {}
    for site, session in zip(sites, sessions, strict=True):
        line = lines.setdefault(id(site.warehouse.connection), _Line(rows, table, progress))
        line.stops.append((site, session))
    columns: Columns = {}
    running = {pool.submit(copy_context().run, line.run): line for line in lines.values()}
    try:
        for future in as_completed(running):
            columns |= future.result()
    except BaseException:
        _stop(running)
        raise
    return columns


@contextmanager
def _named(site: Site) -> Iterator[None]:
    """Name the warehouse, and the views that are read of it, in its errors."""
    try:
        yield
    except WarehouseError as error:
        views = ", ".join(part.view for part in site.program.parts)
        what = f" (for {views})" if views else ""
        raise type(error)(f"warehouse {site.warehouse.name!r}: {error}{what}") from error


@dataclass
class _Line:
    """Sites that answer one after the other, in a thread of their own."""

    rows: ClientSpine
    table: str | None
    progress: Progress
    stops: list[tuple[Site, Session]] = field(default_factory=list)
    stopped: bool = False

    def run(self) -> Columns:
        columns: Columns = {}
        for site, session in self.stops:
            if self.stopped:
                break
            table = self.table if site.holds_spine else None
            with _named(site):
                columns |= answers(site, session, self.rows, table, self.progress)
        return columns

    def stop(self) -> None:
        self.stopped = True
        for _, session in self.stops:
            interrupt = getattr(session, "interrupt", None)
            if interrupt is not None:
                interrupt()


def _stop(running: Mapping[Future[Columns], _Line]) -> None:
    """Cancel what still runs, where a session can be told; again, as it may be between two."""
    waiting = {*running}
    while waiting:
        for future in waiting:
            running[future].stop()
        waiting = wait(waiting, timeout=_AGAIN).not_done


def _met(columns: Columns, own: pa.Table, meeting: FeaturePlan, plan: FeaturePlan) -> ClientSpine:
    """Return the answers, and what a request brings, as the spine of the meeting place."""
    import pyarrow as pa

    given = {
        name: own.column(name) if name in plan.request else columns[name]
        for name in meeting.request
    }
    if not given:  # expressions over nothing still have a row each
        return ClientSpine(own.select([]), ())
    return ClientSpine(pa.table(given), tuple(given))


def _call_functions(
    plan: FeaturePlan, functions: PythonFunctions, columns: Columns, own: pa.Table
) -> None:
    """Add the features that Python functions compute, of columns and the spine's own."""
    import pyarrow as pa

    for part in plan.on_demand:
        if part.view.function is None:
            continue
        inputs = {}
        for name, column in part.inputs:
            inputs[name] = columns.get(column)
            if inputs[name] is None:
                inputs[name] = request_column(column, own.column(column), plan.request[column])
        found = functions.compute(part.view, pa.table(inputs))
        columns |= {output: found.column(feature) for feature, output in part.outputs}


def _check_lengths(columns: Columns, length: int) -> None:
    others = {name: len(column) for name, column in columns.items() if len(column) != length}
    if others:
        raise WarehouseError(
            f"the parts of one answer have different lengths: {length} rows of the spine, {others}"
        )


def _one_statement(
    site: Site, session: Session, plan: FeaturePlan, rows: int | None
) -> Iterator[Piece]:
    """Run spine and parts joined in one statement, where no temporary table can hold the spine."""
    program = site.program
    check_in_query(plan)
    statement = program.statement(program.joined(), "")
    schema = {**site.spine_types, **plan.dtypes()}
    if rows is None:
        tables = iter([session.query(statement, schema)])
    else:
        tables = session.stream(statement, schema, rows)
    own = site.spine.columns
    for table in tables:
        named = table.rename_columns([*own, *plan.columns])
        yield None, named.select(own), named.select(plan.columns)
