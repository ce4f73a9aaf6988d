"""Resolved views, and the plan of what was asked of them: frozen, printable, free of references."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from virtualfs.cached import cached_property
from virtualfs.compiler.key_forms import UNKNOWN_FORM
from virtualfs.compiler.operations import Node
from virtualfs.definitions.aggregate import Function
from virtualfs.definitions.base import Model
from virtualfs.definitions.duration import Duration, format_duration, microseconds
from virtualfs.errors import SpineError

__all__ = [
    "GIVEN",
    "FeaturePlan",
    "LateData",
    "OnDemandPart",
    "OnDemandSelection",
    "Part",
    "Partition",
    "ResolvedAggregate",
    "ResolvedFeature",
    "ResolvedInput",
    "ResolvedOnDemand",
    "ResolvedView",
    "Selection",
    "TimeRange",
    "in_folder",
    "plan_features",
    "request_inputs",
]

PROJECT_FOLDER = "${project}"
"""Stands in stored SQL for the folder that relative paths are meant from, wherever it lies."""
RESERVED = "__"
"""Column names that start so belong to the compiler."""
GIVEN = f"{RESERVED}given_"
"""Begins the names of columns that are read only for on-demand features."""
LateData = Literal["include", "exclude"]
"""Whether rows that arrived after an instant count at it (rule 7)."""


_PATH = re.compile(r"(?<=\(')" + re.escape(PROJECT_FOLDER) + "(?=/)")


def in_folder(text: str, folder: str) -> str:
    """Return a statement with the project's folder in the paths that it reads.

    >>> in_folder("SELECT * FROM read_parquet('${project}/a.parquet')", "/home")
    "SELECT * FROM read_parquet('/home/a.parquet')"
    """
    return _PATH.sub(folder.replace("'", "''").replace("\\", r"\\"), text)


class ResolvedAggregate(Model):
    """A function over the rows of a time window.

    ``input`` is the column of the view's rows that it is over, NULL where a row does not count;
    None counts rows. ``where`` is the condition's SQL, which is already in the input.
    """

    function: Function
    input: str | None
    window: Duration | None
    offset: Duration = timedelta(0)
    n: int | None = None
    q: float | None = None
    where: str | None = None


class ResolvedFeature(Model):
    """One feature with its SQL (in the view's names, before any cast) and its final type.

    Of an aggregate ``sql`` says in words what it is; of an on-demand feature it is the expression
    as written, and ``tree`` what it means.
    """

    name: str
    sql: str
    dtype: str
    description: str = ""
    tags: dict[str, str] = {}
    deprecated: str = ""
    aggregate: ResolvedAggregate | None = None
    tree: list[list[Any]] | None = None


class ResolvedInput(Model):
    """A selection that an on-demand view reads, its names resolved."""

    view: str
    name: str
    join_keys: dict[str, str]
    features: tuple[str, ...]


class ResolvedOnDemand(Model):
    """An on-demand feature view with everything that computing it needs.

    ``columns`` are its inputs by the names that expressions have for them: the number in ``inputs``
    and the feature, or None and the name in ``request``. ``dtypes`` are theirs. A feature has its
    ``tree``, or all come from ``function``, whose source had ``source_hash`` when it was planned.
    """

    name: str
    fingerprint: str
    inputs: tuple[ResolvedInput, ...]
    request: dict[str, str]
    columns: dict[str, tuple[int | None, str]]
    dtypes: dict[str, str]
    features: tuple[ResolvedFeature, ...]
    function: str | None = None
    mode: Literal["pandas", "arrow"] = "pandas"
    source_hash: str | None = None
    online: bool = True
    description: str = ""
    deprecated: str = ""
    version: int | None = None

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.version))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def label(self) -> str:
        """Name and version, as ``share@2`` or ``share (draft)``."""
        return _label(self.name, self.version)

    def trees(self, features: Iterable[str]) -> list[Node]:
        """Return the expressions of some features, in order."""
        held = {feature.name: feature.tree for feature in self.features}
        return [Node.from_json(held[name] or ()) for name in features]

    def reads(self, features: Sequence[str]) -> list[str]:
        """Return the inputs that some features need, in the view's order."""
        if self.function is not None:
            return list(self.columns)
        used = {name for tree in self.trees(features) for name in tree.inputs()}
        return [name for name in self.columns if name in used]


def _label(name: str, version: int | None) -> str:
    return f"{name}@{version}" if version else f"{name} (draft)"


class Partition(Model):
    """A column that folders are named by: what it says of the event timestamp, and its type."""

    name: str
    unit: str
    dtype: str


class TimeRange(Model):
    """By what a source of files tells when its rows happened, without reading them.

    ``column`` is the source's own event timestamp, of type ``dtype``; ``partitions``
    are the columns that folders are named by.
    """

    column: str
    dtype: str
    partitions: tuple[Partition, ...] = ()


class ResolvedView(Model):
    """A feature view with everything that compiling it needs, as text and types.

    ``rows_sql`` selects, in the warehouse's dialect, one row per source row: the join keys, the
    times and the features, or what aggregates are over; ``columns`` gives their types, in order.
    ``source_columns`` are the columns of the source that it reads, with the types that they had.
    ``source_sql`` is what they are read from, a table or a query in parentheses; None for views
    that were resolved before it was kept. ``key_forms`` says how the warehouse compares the strings
    of join keys, where equal ones may differ (:mod:`virtualfs.compiler.key_forms`).
    """

    name: str
    fingerprint: str
    warehouse: str
    entities: tuple[str, ...]
    join_keys: dict[str, str]
    rows_sql: str
    columns: dict[str, str]
    features: tuple[ResolvedFeature, ...]
    event_timestamp: str | None = None
    created_timestamp: str | None = None
    valid_to: str | None = None
    timezone: str = "UTC"
    availability_delay: Duration = timedelta(0)
    ttl: Duration | None = None
    boundary: Literal["inclusive", "exclusive"] = "inclusive"
    online: bool = True
    freshness: Duration | None = None
    description: str = ""
    deprecated: str = ""
    source_columns: dict[str, str] = {}
    time_range: Annotated[
        TimeRange | None, Field(default=None, exclude_if=lambda found: found is None)
    ] = None
    source_sql: Annotated[
        str | None, Field(default=None, exclude_if=lambda found: found is None)
    ] = None
    key_forms: Annotated[dict[str, str], Field(default={}, exclude_if=lambda found: not found)] = {}
    version: int | None = None

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.version, self.rows_sql))

    @property
    def is_cacheable(self) -> bool:
        """Whether equal keys have one form that is known outside the warehouse."""
        return UNKNOWN_FORM not in self.key_forms.values()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def is_aggregate(self) -> bool:
        """Whether the features are aggregates over windows, not latest values."""
        return self.features[:1] != () and self.features[0].aggregate is not None

    @property
    def label(self) -> str:
        """Name and version, as ``weather@2`` or ``weather (draft)``."""
        return _label(self.name, self.version)

    @property
    def lag(self) -> int:
        """Microseconds that a row's event must lie before an instant to be visible at it.

        Rule 2: ``event + delay <= t`` (inclusive) or ``< t`` (exclusive). Times are whole
        microseconds, so both are ``event <= t - lag``; the spine's side is shifted, and the
        source's columns and indexes stay as they are.
        """
        return microseconds(self.availability_delay) + (self.boundary == "exclusive")

    def placed(self, folder: str) -> ResolvedView:
        """Return the view with the project's folder in its paths, ready to run."""
        if PROJECT_FOLDER not in self.rows_sql:
            return self
        return self._with_paths(lambda text: in_folder(text, folder))

    def movable(self, folder: str) -> ResolvedView:
        """Return the view with its paths below the project's folder meant from there again."""
        inside = folder.replace("'", "''")
        return self._with_paths(lambda text: text.replace(f"'{inside}/", f"'{PROJECT_FOLDER}/"))

    def _with_paths(self, change: Callable[[str], str]) -> ResolvedView:
        source = self.source_sql and change(self.source_sql)
        return self.model_copy(update={"rows_sql": change(self.rows_sql), "source_sql": source})

    def rules(self) -> str:
        """Return the view's time rules in words."""
        if self.event_timestamp is None:
            return "static: one row per key, no point-in-time guarantee"
        if self.is_aggregate:
            rules = [f"windows over {self.event_timestamp}"]
        elif self.valid_to:
            rules = [f"valid from {self.event_timestamp} until {self.valid_to}"]
        else:
            rules = [f"latest by {self.event_timestamp}"]
        if self.created_timestamp and not self.is_aggregate:
            rules.append(f"ties by {self.created_timestamp}")
        if self.availability_delay:
            rules.append(f"known {format_duration(self.availability_delay)} later")
        if self.ttl:
            rules.append(f"TTL {format_duration(self.ttl)}")
        if self.boundary == "exclusive":
            rules.append("strictly before the instant")
        return ", ".join(rules)


@dataclass(frozen=True)
class Selection:
    """Features asked of one view, perhaps under another name or other keys."""

    view: ResolvedView
    features: tuple[str, ...]
    name: str
    join_keys: Mapping[str, str]
    deprecated: tuple[str, ...] = ()
    """What is said against the service that it was asked for by."""
    called: Mapping[str, str] = field(default_factory=dict)
    """Names of output columns that are settled, by feature."""

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Spine columns that hold the view's join keys, in the view's order."""
        return tuple(self.join_keys.get(key, key) for key in self.view.join_keys)

    @property
    def views(self) -> tuple[ResolvedView, ...]:
        """The feature views that are read."""
        return (self.view,)


@dataclass(frozen=True)
class OnDemandSelection:
    """Features asked of one on-demand view, with the selections that it reads."""

    view: ResolvedOnDemand
    features: tuple[str, ...]
    name: str
    inputs: tuple[Selection, ...]
    deprecated: tuple[str, ...] = ()
    called: Mapping[str, str] = field(default_factory=dict)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Spine columns that hold the join keys of what is read."""
        return tuple(dict.fromkeys(key for item in self.inputs for key in item.key_columns))

    @property
    def views(self) -> tuple[ResolvedView, ...]:
        """The feature views that are read."""
        return tuple(item.view for item in self.inputs)

    @property
    def request(self) -> dict[str, str]:
        """Request inputs that the features need, with their data types."""
        return {
            name: self.view.request[name]
            for name in self.view.reads(self.features)
            if name in self.view.request
        }


@dataclass(frozen=True)
class Part:
    """One use of a view: which features, under which output names, on which spine columns."""

    view: ResolvedView
    key_columns: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    """Pairs of feature and output column."""
    late_data: LateData = "include"

    @property
    def features(self) -> list[str]:
        """The features that are read, each once."""
        return list(dict.fromkeys(feature for feature, _ in self.outputs))

    @cached_property
    def places(self) -> tuple[int, ...] | None:
        """Where the outputs stand among the view's features; None if they are all, in order."""
        names = self.view.feature_names
        found = tuple([names.index(feature) for feature, _ in self.outputs])
        return None if found == tuple(range(len(names))) else found

    @property
    def judges_arrival(self) -> bool:
        """Whether rows must have been written by an instant to count at it (rule 7)."""
        return self.late_data == "exclude" and self.view.created_timestamp is not None

    def rules(self) -> str:
        """Return the time rules in words."""
        rules = self.view.rules()
        if self.late_data == "include" or self.view.event_timestamp is None:
            return rules
        if self.judges_arrival:
            return f"{rules}, written by the instant"
        return f"{rules}, judged by event time alone: its source has no created timestamp"


@dataclass(frozen=True)
class OnDemandPart:
    """One use of an on-demand view: where its inputs are found, and its output columns."""

    view: ResolvedOnDemand
    inputs: tuple[tuple[str, str], ...]
    """Pairs of input and column: an output of a part, or a request input."""
    outputs: tuple[tuple[str, str], ...]

    @property
    def trees(self) -> tuple[tuple[str, Node], ...]:
        """Output columns and their expressions; nothing where a function computes them."""
        if self.view.function is not None:
            return ()
        names = [output for _, output in self.outputs]
        trees = self.view.trees(feature for feature, _ in self.outputs)
        return tuple(zip(names, trees, strict=True))

    @property
    def dtypes(self) -> dict[str, str]:
        """Data types of the inputs, by column."""
        return {column: self.view.dtypes[name] for name, column in self.inputs}

    def rules(self) -> str:
        """Return in words how the features are computed."""
        if self.view.function is None:
            return "expressions over other features, computed in the same query"
        return f"computed in this process by {self.view.function}, over {self.view.mode}"


@dataclass(frozen=True)
class FeaturePlan:
    """What a request asks for: one part per view used, and the order of the output columns."""

    parts: tuple[Part, ...]
    columns: tuple[str, ...]
    on_demand: tuple[OnDemandPart, ...] = ()
    request: Mapping[str, str] = field(default_factory=dict)
    """Request inputs that are needed, with their data types."""
    deprecated: tuple[str, ...] = ()
    """What should no longer be asked for, and what to ask for instead."""

    @cached_property
    def key_columns(self) -> dict[str, str]:
        """Spine columns that hold join keys, mapped to the type that they are declared with."""
        return {
            column: dtype
            for part in self.parts
            for column, dtype in zip(part.key_columns, part.view.join_keys.values(), strict=True)
        }

    @cached_property
    def request_columns(self) -> dict[str, str]:
        """Request inputs that are no join keys, with their data types."""
        keys = self.key_columns
        return {name: dtype for name, dtype in self.request.items() if name not in keys}

    @property
    def needs_time(self) -> bool:
        """Whether any view goes by time; a spine needs no timestamp when all are static."""
        return any(part.view.event_timestamp for part in self.parts)

    @property
    def uses(self) -> tuple[Part | OnDemandPart, ...]:
        """All parts, on-demand ones last."""
        return (*self.parts, *self.on_demand)

    @cached_property
    def places(self) -> tuple[int, ...] | None:
        """Where the output columns stand among those of all parts; None where they are in order."""
        given = [output for part in self.parts for _, output in part.outputs]
        found = tuple([given.index(name) for name in self.columns])
        return None if found == tuple(range(len(given))) else found

    @cached_property
    def shown_dtypes(self) -> dict[str, str]:
        """Keys and output columns with their data types."""
        return {**self.key_columns, **self.dtypes()}

    def dtypes(self) -> dict[str, str]:
        """Return the output columns with their data types, in the order asked for."""
        found = self.all_dtypes()
        return {column: found[column] for column in self.columns}

    def all_dtypes(self) -> dict[str, str]:
        """Return the data types of the output columns and of those that only inputs need."""
        found: dict[str, str] = {}
        for part in self.uses:
            dtypes = {feature.name: feature.dtype for feature in part.view.features}
            found |= {output: dtypes[feature] for feature, output in part.outputs}
        return found


def plan_features(
    selections: Sequence[Selection | OnDemandSelection],
    taken: Iterable[str],
    *,
    full_names: bool = False,
    late_data: LateData = "include",
) -> FeaturePlan:
    """Name the output columns and gather the features of each view into one part.

    A feature is named ``feature``; where two asked for share the name, or a spine column has it,
    every holder becomes ``view__feature``. What on-demand views read of others joins the parts.

    Parameters
    ----------
    taken
        Names of the spine's columns.
    full_names
        Whether every output column is called ``view__feature``.
    late_data
        Whether rows that arrived after an instant count at it.

    Raises
    ------
    SpineError
        Two columns would still have one name, or nothing was asked for; two on-demand views
        disagree about a request input's type.
    """
    asked = [(selection, feature) for selection in selections for feature in selection.features]
    if not asked:
        raise SpineError("no features were asked for; name a service, references or views")
    spine = set(taken)
    times = Counter(feature for item, feature in asked if feature not in item.called)
    parts: dict[_Place, list[tuple[str, str]]] = {}
    views = {}
    computed: dict[_Uses, tuple[OnDemandSelection, list[tuple[str, str]]]] = {}
    columns = []
    for selection, feature in asked:
        name = feature
        if full_names or times[feature] > 1 or feature in spine:
            name = f"{selection.name}__{feature}"
        name = selection.called.get(feature, name)
        if name in spine or name in columns:
            raise SpineError(
                f"two columns would be called {name!r}; ask for the feature once, rename the "
                "spine's column, or use view.with_name(...)"
            )
        columns.append(name)
        if isinstance(selection, OnDemandSelection):
            reads = tuple(map(_place, selection.inputs))
            uses = (selection.name, selection.view.fingerprint, reads)
            computed.setdefault(uses, (selection, []))[1].append((feature, name))
            continue
        parts.setdefault(_place(selection), []).append((feature, name))
        views[_place(selection)] = selection.view
    on_demand: list[OnDemandPart] = []
    for using, outputs in computed.values():
        inputs = []
        for name in using.view.reads([feature for feature, _ in outputs]):
            number, feature = using.view.columns[name]
            if number is None:
                inputs.append((name, feature))
                continue
            read = using.inputs[number]
            held = parts.setdefault(_place(read), [])
            views[_place(read)] = read.view
            # What is asked for itself is not read twice.
            column = next((output for known, output in held if known == feature), None)
            if column is None:
                column = f"{GIVEN}{sum(map(len, parts.values()))}"
                held.append((feature, column))
            inputs.append((name, column))
        on_demand.append(OnDemandPart(using.view, tuple(inputs), tuple(outputs)))
    plan = FeaturePlan(
        parts=tuple(
            Part(views[place], place[2], tuple(outputs), late_data)
            for place, outputs in parts.items()
        ),
        columns=tuple(columns),
        on_demand=tuple(on_demand),
        request=request_inputs(selections),
        deprecated=tuple(dict.fromkeys(text for item in selections for text in _deprecated(item))),
    )
    for name, dtype in plan.request.items():
        key = plan.key_columns.get(name)
        if key is not None and key.rstrip("0123468") != dtype.rstrip("0123468"):
            raise SpineError(
                f"the request input {name!r} is {dtype}, but the join key of that name is {key}; "
                "say the same in both, or rename the input"
            )
    return plan


def request_inputs(selections: Iterable[Selection | OnDemandSelection]) -> dict[str, str]:
    """Return the request inputs that selections need, with their data types.

    Raises
    ------
    SpineError
        Two views disagree about one's type.
    """
    found: dict[str, str] = {}
    for selection in selections:
        if isinstance(selection, OnDemandSelection):
            for name, dtype in selection.request.items():
                if found.setdefault(name, dtype) != dtype:
                    raise SpineError(
                        f"on-demand views disagree about the request input {name!r}, which is "
                        f"{found[name]} to one and {dtype} to {selection.view.name}; ask for them "
                        "one at a time, or rename it in one"
                    )
    return found


def _deprecated(selection: Selection | OnDemandSelection) -> Iterator[str]:
    view = selection.view
    yield from selection.deprecated
    if view.deprecated:
        yield f"feature view {view.label} is deprecated: {view.deprecated}"
    for feature in view.features:
        if feature.deprecated and feature.name in selection.features:
            yield f"feature {view.name}:{feature.name} is deprecated: {feature.deprecated}"


_Place = tuple[str, str, tuple[str, ...]]
_Uses = tuple[str, str, tuple[_Place, ...]]


def _place(selection: Selection) -> _Place:
    return (selection.name, selection.view.fingerprint, selection.key_columns)
