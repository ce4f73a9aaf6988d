"""The schema of one snapshot: Strawberry's static part, extended by the fields of the catalog."""

from __future__ import annotations

import logging
from copy import copy
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any

import strawberry
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from graphql import GraphQLError, GraphQLSchema, Undefined
from virtualfs.errors import VirtualFSError
from virtualfs_graphql.generated import extended
from virtualfs_graphql.mutations import Mutation
from virtualfs_graphql.request import Snapshot
from virtualfs_graphql.scalars import SCALARS, BigInt
from virtualfs_graphql.schema import StaticQuery
from virtualfs_graphql.types import FeatureServiceMeta, FeatureViewMeta, LateData

__all__ = ["CatalogSchema", "static_schema"]

_log = logging.getLogger("virtualfs.graphql")


class _Errors(SchemaExtension):
    """Our own errors with their message and code; all others masked, and logged."""

    execution_context: ExecutionContext

    def on_operation(self) -> Any:
        """Replace the errors of a finished operation."""
        yield
        result: Any = self.execution_context.result
        if result is not None and getattr(result, "errors", None):
            result.errors = [_presented(error) for error in result.errors]


def _presented(error: GraphQLError) -> GraphQLError:
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if error.path is None or cause is None or isinstance(cause, GraphQLError):
        # Syntax, validation and variables: the caller's own words, nothing of ours.
        return error
    if isinstance(cause, VirtualFSError):
        message, code = str(cause), type(cause).__name__
    else:
        _log.error("internal error at %s", error.path, exc_info=cause)
        message, code = "internal error", "InternalError"
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions={"code": code},
    )


class _Prepared(SchemaExtension):
    """Takes the document that was parsed and checked once, for all requests that bring it."""

    execution_context: ExecutionContext

    def on_parse(self) -> Any:
        """Give the document to Strawberry, which then parses none."""
        context = self.execution_context.context
        if context is not None and context.document is not None:
            self.execution_context.graphql_document = context.document
        yield

    def on_validate(self) -> Any:
        """Say that it is valid."""
        context = self.execution_context.context
        if context is not None and context.document is not None:
            self.execution_context.pre_execution_errors = []
        yield


class CatalogSchema(strawberry.Schema):
    """The schema that every project has; :meth:`of` adds the fields of a catalog."""

    def __init__(self) -> None:
        super().__init__(
            query=StaticQuery,
            mutation=Mutation,
            # What only generated fields have.
            types=[FeatureViewMeta, FeatureServiceMeta, BigInt, Decimal, date, LateData],
            extensions=[_Prepared, _Errors],
            config=StrawberryConfig(scalar_map=SCALARS),
        )
        # Python's None is no default of the API: `search: String`, not `search: String = null`.
        for root in (self._schema.query_type, self._schema.mutation_type):
            for field in root.fields.values() if root is not None else ():
                for argument in field.args.values():
                    if argument.default_value is None:
                        argument.default_value = Undefined

    @staticmethod
    def of(snapshot: Snapshot) -> CatalogSchema:
        """Return the schema of a snapshot's catalog; the static types are those of all others."""
        made = copy(_static())
        made._schema = extended(snapshot, _static().core)
        made._schema._strawberry_schema = made  # type: ignore[attr-defined]
        return made

    @property
    def core(self) -> GraphQLSchema:
        """The schema as graphql-core has it."""
        return self._schema

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Log nothing here: `_Errors` logs what is not the caller's doing."""


@cache
def _static() -> CatalogSchema:
    return CatalogSchema()


def static_schema() -> GraphQLSchema:
    """Return the part of the schema that every project has."""
    return _static().core
