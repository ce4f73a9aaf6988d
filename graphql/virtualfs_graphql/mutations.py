# ruff: noqa: D102 - the fields' descriptions are what docstrings would be
"""What changes the catalog or the cache, for those who bring a token with the scope for it.

A mutation that the input does not allow changes nothing, and says in ``errors`` what is wrong and
where in the input. Sending one again does no harm: an apply of what is applied makes no revision,
the newer of two rows that are pushed wins, and values that are filled in twice are the same.

Annotations are read at run time by Strawberry, so this module does not postpone them.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import strawberry

from virtualfs.config import Scope
from virtualfs.definitions.base import Definition
from virtualfs.definitions.project import definitions_from_sections
from virtualfs.definitions.source import Source
from virtualfs.errors import (
    DefinitionError,
    NotFoundError,
    PermissionDeniedError,
    SpineError,
    UnsupportedByWarehouseError,
    WarehouseError,
    WarehouseUnavailableError,
)
from virtualfs.registry.plan import Plan, Revision
from virtualfs_graphql.inputs import asked_for, checked_keys, typed_columns
from virtualfs_graphql.scalars import JSON
from virtualfs_graphql.schema import RequestInfo
from virtualfs_graphql.types import described

__all__ = ["Mutation"]

T = TypeVar("T")
R = TypeVar("R")
_INPUT_ERRORS = (
    DefinitionError, NotFoundError, SpineError, UnsupportedByWarehouseError, WarehouseError,
)  # fmt: skip
"""What a caller's input can be wrong in: told as data. A warehouse refuses tables that it lacks."""


@strawberry.type(description="What is wrong with an input, and where.")
class InputError:
    """What is wrong with an input, and where."""

    message: str
    code: str = strawberry.field(description="Class of the error, as in extensions.code")
    path: list[str] = strawberry.field(description="Where in the input: argument, field, number")


@strawberry.type(description="One change of the catalog.")
class Change:
    """One change of the catalog."""

    action: str = strawberry.field(description="add, change or remove")
    kind: str
    name: str
    version: int
    impact: str = strawberry.field(description="metadata, compatible or breaking")
    details: list[str]


@strawberry.type(description="What an apply did, or (dryRun) would do.")
class ApplyResult:
    """What an apply did, or would do."""

    applied: bool = strawberry.field(description="Whether the catalog is now as was asked")
    revision: int | None = strawberry.field(description="The revision that it made; null if none")
    changes: list[Change]
    warnings: list[str]
    doubts: list[str] = strawberry.field(description="What was guessed of a table, to be settled")
    errors: list[InputError]


@strawberry.type(description="What was filled in of one view.")
class MaterializedView:
    """What was filled in of one view."""

    view: str
    keys: int
    written: int
    kept: int = strawberry.field(description="Keys of which the cache had a newer row")
    seconds: float


@strawberry.type(description="What filling the cache did.")
class MaterializeResult:
    """What filling the cache did."""

    views: list[MaterializedView]
    errors: list[InputError]


@strawberry.type(description="What became of rows that were pushed.")
class PushResult:
    """What became of rows that were pushed."""

    written: int
    dropped: int = strawberry.field(description="Rows older than what the cache holds")
    errors: list[InputError]


@strawberry.input(description="An existing table, to be registered as a feature view.")
class RegisterTableInput:
    """An existing table, to be registered as a feature view."""

    table: str
    entity: str
    join_keys: list[str]
    event_timestamp: str | None = None
    created_timestamp: str | None = None
    features: list[str] | None = strawberry.field(
        default=None, description="All columns but keys and times when null"
    )
    name: str | None = strawberry.field(default=None, description="The table's when null")
    warehouse: str = "default"


@strawberry.type(name="Mutation")
class Mutation:
    """What changes the catalog or the cache."""

    @described("Register an existing table as a feature view. Needs the scope admin.")
    async def register_table(self, info: RequestInfo, input: RegisterTableInput) -> ApplyResult:  # noqa: A002
        _demand(info, "admin")
        store = info.context.snapshot.store
        given = {name: value for name, value in vars(input).items() if name != "table"}
        work = partial(store.register_table, input.table, **given)
        return await _done(work, _applied, _not_applied, "input")

    @described(
        "Apply definitions, as the sections of features.yaml; all or none. What is there and is "
        "not named stays. Needs the scope admin."
    )
    async def apply(
        self, info: RequestInfo, definitions: JSON, dry_run: bool | None = False
    ) -> ApplyResult:
        _demand(info, "admin")
        store = info.context.snapshot.store

        def work() -> Plan | Revision:
            objects = definitions_from_sections(definitions)
            _refuse_paths(objects)
            return store.plan(objects) if dry_run else store.apply(objects)

        return await _done(work, _applied, _not_applied, "definitions")

    @described(
        "Fill the cache with the values of features, a service or (neither) all views. Needs the "
        "scope write."
    )
    async def materialize(
        self, info: RequestInfo, features: list[str] | None = None, service: str | None = None
    ) -> MaterializeResult:
        _demand(info, "write")
        info.context.check_features(features)
        store = info.context.snapshot.store

        def work() -> MaterializeResult:
            asked: Any = None
            if features is not None or service is not None:
                named = asked_for(service, features)
                asked = named if isinstance(named, str) else list(named)
            found = store.materialize(asked)
            return MaterializeResult(
                views=[
                    MaterializedView(
                        view=item.view,
                        keys=item.keys,
                        written=item.written,
                        kept=item.kept,
                        seconds=item.seconds,
                    )
                    for item in found.views
                ],
                errors=[],
            )

        return await _done(
            work,
            lambda found: found,
            lambda errors: MaterializeResult(views=[], errors=errors),
            "service" if features is None else "features",
        )

    @described(
        "Put rows of a view into the cache before the warehouse has them; the newer wins. Needs "
        "the scope write."
    )
    async def push(self, info: RequestInfo, view: str, rows: list[JSON]) -> PushResult:
        _demand(info, "write")
        context = info.context
        context.check_list(len(rows), "rows")

        def work() -> PushResult:
            snapshot = context.snapshot
            known = snapshot.views.get(view)
            given = rows if known is None else typed_columns(known, rows)
            found = snapshot.store.push(view, given)
            return PushResult(written=found.written, dropped=found.dropped, errors=[])

        return await _done(
            work,
            lambda found: found,
            lambda errors: PushResult(written=0, dropped=0, errors=errors),
            "rows",
        )

    @described(
        "Forget what the cache holds of a view, or of some of its keys; returns how many rows. "
        "Needs the scope write."
    )
    async def invalidate(self, info: RequestInfo, view: str, keys: list[JSON] | None = None) -> int:
        _demand(info, "write")
        context = info.context
        context.check_list(len(keys or ()), "keys")

        def work() -> int:
            snapshot = context.snapshot
            known = snapshot.views.get(view)
            given: Any = keys
            if known is not None and keys is not None:
                given = checked_keys(known, cast("Sequence[Any]", keys))
            return snapshot.store.invalidate(view, given)

        return await asyncio.to_thread(work)


def _demand(info: RequestInfo, scope: Scope) -> None:
    """Refuse a request whose token does not allow something."""
    if scope not in info.context.scopes:
        raise PermissionDeniedError(
            f"this needs a token with the scope {scope}: Authorization: Bearer TOKEN; the request "
            f"has {', '.join(sorted(info.context.scopes)) or 'none'} (`virtualfs token` makes one)"
        )


async def _done(
    work: Callable[[], T],
    shown: Callable[[T], R],
    refused: Callable[[list[InputError]], R],
    argument: str,
) -> R:
    """Do something in a thread, and tell what the input was wrong in as data."""
    try:
        return shown(await asyncio.to_thread(work))
    except WarehouseUnavailableError:
        raise
    except _INPUT_ERRORS as error:
        code = type(error).__name__
        problems = error.problems or (((), str(error)),)
        return refused(
            [
                InputError(message=text, code=code, path=[argument, *map(str, path)])
                for path, text in problems
            ]
        )


def _refuse_paths(objects: Sequence[Definition]) -> None:
    """Refuse sources that read files: whoever may send definitions is not on this machine."""
    problems = [
        (("sources", item.name, "path"), f"source {item.name!r}: files are not read for the API")
        for item in objects
        if isinstance(item, Source) and item.path is not None
    ]
    if problems:
        raise DefinitionError("; ".join(text for _, text in problems), problems=problems)


def _applied(found: Plan | Revision) -> ApplyResult:
    plan = found if isinstance(found, Plan) else found.plan
    number = None if isinstance(found, Plan) or not plan else found.number
    return ApplyResult(
        applied=not isinstance(found, Plan),
        revision=number,
        changes=[
            Change(
                action=change.action,
                kind=change.kind,
                name=change.name,
                version=change.version,
                impact=change.impact,
                details=list(change.details),
            )
            for change in plan.changes
        ],
        warnings=list(plan.warnings),
        doubts=[] if isinstance(found, Plan) else list(found.doubts),
        errors=[],
    )


def _not_applied(errors: list[InputError]) -> ApplyResult:
    return ApplyResult(
        applied=False, revision=None, changes=[], warnings=[], doubts=[], errors=errors
    )
