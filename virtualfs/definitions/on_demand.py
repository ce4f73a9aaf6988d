"""On-demand feature views: features computed from other features and from what a request brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from virtualfs.definitions.base import FeatureName, Model
from virtualfs.definitions.feature_service import as_selections
from virtualfs.definitions.feature_view import AnyView, Feature, FeatureSelection, check_names
from virtualfs.dtypes import DTypeName

__all__ = ["REQUEST_TYPES", "OnDemandFeatureView"]

REQUEST_TYPES = (
    "int64", "float64", "boolean", "string", "date", "timestamp", "timestamp('UTC')",
)  # fmt: skip
"""The data types of request inputs, which mean the same in spines and in JSON."""


class OnDemandFeatureView(AnyView):
    """Features computed when they are asked for, from other features and from request inputs.

    In training they are part of the warehouse's query; online the same expressions are computed in
    this process. Request inputs are columns of the spine in training, and ``request=`` online.

    Parameters
    ----------
    name
        Name of the view, unique among all views of its project.
    inputs
        The feature views, selections of them (``view[["a"]]``, ``view.with_join_keys(...)``), or
        their names. Inputs are read as ``_.feature``, or as ``_.view__feature`` where names
        collide.
    request
        What a request brings, with its data types: ``{"amount": "float64"}``.
    features
        :class:`Feature` objects, with ``expr=`` over the inputs: an Ibis deferred or SQL text. With
        `function`, features with their ``dtype`` and without ``expr=``.
    function
        For what expressions cannot say: a Python function, or its import path as
        ``"package.module:name"``. It takes a table of all inputs and returns one with a column for
        each feature and a row for each row. Its module must be allowed by ``[python] modules`` in
        the configuration.
    mode
        What the function takes and returns: ``"pandas"`` frames or ``"arrow"`` tables.
    deprecated
        Why it should no longer be used, and what to use instead: callers are warned, and GraphQL
        says so.
    graphql_name
        How it is called in GraphQL; its name in camel case when empty.

    Raises
    ------
    DefinitionError
        A name stands twice, or a feature does not say how it is computed.

    Examples
    --------
    >>> from virtualfs import _
    >>> share = OnDemandFeatureView(
    ...     "share",
    ...     inputs=["spending"],
    ...     request={"amount": "float64"},
    ...     features=[Feature("share_of_mean", _.amount / _.amount_mean_30d)],
    ... )
    >>> share.request, share.features[0].expr.text
    ({'amount': 'float64'}, '(_.amount / _.amount_mean_30d)')
    """

    inputs: tuple[FeatureSelection, ...] = ()
    request: dict[FeatureName, DTypeName] = {}
    features: tuple[Feature, ...]
    function: str | None = None
    mode: Literal["pandas", "arrow"] = "pandas"
    online: bool = True

    def __init__(
        self,
        name: str,
        *,
        inputs: Sequence[AnyView | FeatureSelection | str] = (),
        request: Mapping[str, str] | None = None,
        features: Sequence[Feature],
        function: Callable[..., Any] | str | None = None,
        mode: Literal["pandas", "arrow"] = "pandas",
        online: bool = True,
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] | None = None,
        deprecated: str = "",
        graphql_name: str = "",
        **unknown: Any,
    ) -> None:
        Model.__init__(
            self,
            name=name,
            inputs=inputs,
            request=request or {},
            features=features,
            function=function,
            mode=mode,
            online=online,
            description=description,
            owner=owner,
            tags=tags or {},
            deprecated=deprecated,
            graphql_name=graphql_name,
            **unknown,
        )

    @field_validator("inputs", mode="before")
    @classmethod
    def _selections(cls, inputs: Any) -> Any:
        return as_selections(inputs, "inputs")

    @field_validator("features", mode="before")
    @classmethod
    def _is_list(cls, features: Any) -> Any:
        if isinstance(features, str) or not isinstance(features, Sequence) or not features:
            raise ValueError("this must be a list with at least one Feature")
        return tuple(Feature(**item) if isinstance(item, Mapping) else item for item in features)

    @field_validator("function", mode="before")
    @classmethod
    def _import_path(cls, function: Any) -> Any:
        if not callable(function):
            return function
        module, name = function.__module__, function.__qualname__
        if module == "__main__" or module.startswith("_virtualfs_definitions_") or "<" in name:
            raise ValueError(
                f"{name} cannot be imported by others: put it at the top of a module beside the "
                'definitions, and give its import path, as in "transforms:score"'
            )
        return f"{module}:{name}"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_names(self.features)
        for name, dtype in self.request.items():
            if dtype not in REQUEST_TYPES:
                raise ValueError(
                    f"request input {name!r} is {dtype}; a request brings "
                    f"{', '.join(REQUEST_TYPES)}, so say the one that holds it"
                )
        if not self.inputs and not self.request:
            raise ValueError("there is nothing to compute from: give inputs= or request=")
        if self.function is not None and self.function.count(":") != 1:
            raise ValueError(
                f'function= is an import path such as "transforms:score", not {self.function!r}'
            )
        for feature in self.features:
            if self.function is None and feature.expr is None:
                raise ValueError(f"feature {feature.name!r} needs expr=, over the view's inputs")
            if self.function is not None and (feature.expr is not None or feature.dtype is None):
                raise ValueError(
                    f"feature {feature.name!r} comes from the function: give its dtype= and no "
                    "expr=; put expressions into a view of their own"
                )
        return self

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the views that are read, in order."""
        return tuple(selection.view_name for selection in self.inputs)
