"""A saved training set as it is remembered: what was asked, what it holds, what was fitted to it.

It stands by itself: the views are kept as they were, resolved, so that the same features can be
asked again, in training and online, whatever has become of the definitions since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from virtualfs.compiler.operations import Node
from virtualfs.compiler.plan import (
    OnDemandSelection,
    ResolvedFeature,
    ResolvedInput,
    ResolvedOnDemand,
    ResolvedView,
    Selection,
)
from virtualfs.compiler.reading import canonical
from virtualfs.definitions.base import Model, Name, fingerprint
from virtualfs.errors import DefinitionError

__all__ = [
    "PREFIX", "Column", "Fitted", "SavedTrainingSet", "Use", "check_transformable", "fitted_view",
    "uses_of",
]  # fmt: skip

PREFIX = "training_set:"
"""Begins references to saved training sets: ``training_set:delays@1``."""
AnySelection = Selection | OnDemandSelection


class Use(Model):
    """A view as it was asked for: under which name, on which keys, and what it read itself."""

    view: ResolvedView | ResolvedOnDemand
    name: str
    join_keys: dict[str, str] = {}
    inputs: tuple[Use, ...] = ()

    @classmethod
    def of(cls, selection: AnySelection, folder: str) -> Use:
        """Return what is remembered of a selection; paths in the project are kept relative."""
        if isinstance(selection, OnDemandSelection):
            inputs = tuple(cls.of(item, folder) for item in selection.inputs)
            return cls(view=selection.view, name=selection.name, inputs=inputs)
        return cls(
            view=selection.view.movable(folder),
            name=selection.name,
            join_keys=dict(selection.join_keys),
        )

    def selection(self, features: Sequence[str], called: Mapping[str, str], folder: str) -> Any:
        """Return the selection again, of some features under their column names."""
        if isinstance(self.view, ResolvedOnDemand):
            inputs = tuple(
                use.selection(item.features, {}, folder)
                for use, item in zip(self.inputs, self.view.inputs, strict=True)
            )
            return OnDemandSelection(self.view, tuple(features), self.name, inputs, called=called)
        placed = self.view.placed(folder)
        return Selection(placed, tuple(features), self.name, self.join_keys, called=called)


class Column(Model):
    """A column of features: which feature of which use it is."""

    name: str
    dtype: str
    use: int
    feature: str


class Fitted(Model):
    """A transformation with its parameters.

    ``tree`` is the expression over columns of the training set; ``replaces`` the column in whose
    place it stands, None where it comes after all others.
    """

    name: str
    written: str
    dtype: str
    tree: list[list[Any]]
    replaces: str | None
    parameters: dict[str, Any] = {}


class SavedTrainingSet(Model):
    """One version of a saved training set."""

    name: Name
    version: int = 0
    description: str = ""
    tags: dict[str, str] = {}
    created_at: datetime
    created_by: str
    kind: Literal["parquet", "table"]
    place: str
    """The file, relative to the project's folder or a URL; or the table."""
    warehouse: str = ""
    """Where the table is; empty for a file."""
    rows: int
    content_hash: str
    own_columns: dict[str, str]
    """Columns of the spine, with their data types."""
    timestamp: str
    uses: tuple[Use, ...]
    columns: tuple[Column, ...]
    request: dict[str, str] = {}
    fitted: tuple[Fitted, ...] = ()
    statistics: dict[str, dict[str, Any]] = {}
    metadata: dict[str, Any] = {}

    @property
    def reference(self) -> str:
        """How it is asked for again, as ``training_set:delays@1``."""
        return f"{PREFIX}{self.name}@{self.version}"

    @property
    def output_names(self) -> tuple[str, ...]:
        """The columns of features, as a model takes them: transformed ones in their places."""
        return tuple(column.name if column else item for column, item in self._outputs())

    def _outputs(self) -> Iterable[tuple[Column | None, str]]:
        """Yield the output columns in order: those of features as they are, and fitted ones."""
        replaced: dict[str, list[str]] = {}
        for item in self.fitted:
            if item.replaces is not None:
                replaced.setdefault(item.replaces, []).append(item.name)
        for column in self.columns:
            if column.name not in replaced:
                yield column, column.name
            else:
                yield from ((None, name) for name in replaced[column.name])
        yield from ((None, item.name) for item in self.fitted if item.replaces is None)

    def features(self) -> list[tuple[str, str]]:
        """Return labels of views and the features that are read of them, each once."""
        found: dict[tuple[str, str], None] = {}
        for column in self.columns:
            view = self.uses[column.use].view
            found[view.label.removesuffix(" (draft)"), column.feature] = None
        return list(found)

    def selections(self, folder: str) -> list[AnySelection]:
        """Return what to ask for to have the same columns again, transformed as here."""
        asked: list[AnySelection] = []
        view, inputs = self._transformed(folder)
        for column, name in self._outputs():
            if column is not None:
                use, called = self.uses[column.use], {column.feature: name}
                asked.append(use.selection([column.feature], called, folder))
            else:
                asked.append(
                    OnDemandSelection(view, (name,), view.name, inputs, called={name: name})
                )
        return asked

    def _transformed(self, folder: str) -> tuple[ResolvedOnDemand, tuple[Selection, ...]]:
        """Return the transformations as one on-demand view, and what it reads.

        Its inputs are features of views: those that are computed on demand themselves are written
        out.
        """
        columns = {column.name: column for column in self.columns}
        reads: dict[str, tuple[int | None, str]] = {}
        dtypes: dict[str, str] = {}
        uses: list[Use] = []
        asked: list[dict[str, None]] = []

        def input_of(use: Use, feature: str) -> Node:
            if use not in uses:
                uses.append(use)
                asked.append({})
            number = uses.index(use)
            asked[number][feature] = None
            name = f"{number}:{feature}"
            found = next(item for item in use.view.features if item.name == feature)
            reads[name], dtypes[name] = (number, feature), found.dtype
            return _input(name, found.dtype)

        def meant(column: Column) -> Node:
            use = self.uses[column.use]
            if isinstance(use.view, ResolvedView):
                return input_of(use, column.feature)
            (tree,) = use.view.trees([column.feature])
            inner = {}
            for name in tree.inputs():
                number, feature = use.view.columns[name]
                if number is None:
                    reads[feature], dtypes[feature] = (None, feature), use.view.request[feature]
                    inner[name] = _input(feature, dtypes[feature])
                else:
                    inner[name] = input_of(use.inputs[number], feature)
            return tree.with_inputs(inner)

        features = []
        for item in self.fitted:
            tree = Node.from_json(item.tree)
            whole = tree.with_inputs({name: meant(columns[name]) for name in sorted(tree.inputs())})
            features.append(
                ResolvedFeature(
                    name=item.name, sql=item.written, dtype=item.dtype, tree=whole.to_json()
                )
            )
        name = f"{self.name}@{self.version}"
        view = ResolvedOnDemand(
            name=name,
            fingerprint=fingerprint([self.reference, self.content_hash]),
            inputs=tuple(
                ResolvedInput(
                    view=use.view.name, name=use.name, join_keys=use.join_keys, features=(*names,)
                )
                for use, names in zip(uses, asked, strict=True)
            ),
            request={name: dtypes[name] for name, (number, _) in reads.items() if number is None},
            columns=reads,
            dtypes=dtypes,
            features=tuple(features),
            version=self.version,
        )
        return view, tuple(
            use.selection([*names], {}, folder) for use, names in zip(uses, asked, strict=True)
        )


def _input(name: str, dtype: str) -> Node:
    import ibis

    return Node("input", canonical(ibis.dtype(dtype)) or dtype, (), name)


def fitted_view(fitted: Sequence[Fitted], dtypes: Mapping[str, str], name: str) -> ResolvedOnDemand:
    """Return transformations as a view over columns that stand in a table already."""
    features = tuple(
        ResolvedFeature(name=item.name, sql=item.written, dtype=item.dtype, tree=item.tree)
        for item in fitted
    )
    read = {name for item in fitted for name in Node.from_json(item.tree).inputs()}
    return ResolvedOnDemand(
        name=name,
        fingerprint=fingerprint([item.model_dump(mode="json") for item in fitted]),
        inputs=(),
        request={column: dtypes[column] for column in dtypes if column in read},
        columns={column: (None, column) for column in dtypes if column in read},
        dtypes={column: dtypes[column] for column in dtypes if column in read},
        features=features,
    )


def uses_of(
    selections: Sequence[AnySelection], columns: Mapping[str, str], folder: str
) -> tuple[tuple[Use, ...], tuple[Column, ...]]:
    """Return what is remembered of selections, and of their output columns.

    Parameters
    ----------
    columns
        The output columns in order, with their data types.
    """
    uses = tuple(Use.of(item, folder) for item in selections)
    names = iter(columns.items())
    found = []
    for number, item in enumerate(selections):
        for feature in item.features:
            name, dtype = next(names)
            found.append(Column(name=name, dtype=dtype, use=number, feature=feature))
    return uses, tuple(found)


def check_transformable(columns: Sequence[Column], uses: Sequence[Use], read: set[str]) -> None:
    """Refuse transformations of what only a Python function computes.

    Raises
    ------
    DefinitionError
        A column that is read is such.
    """
    for column in columns:
        view = uses[column.use].view
        if column.name in read and isinstance(view, ResolvedOnDemand) and view.function:
            raise DefinitionError(
                f"{column.name!r} is computed by the Python function {view.function}, which no "
                "expression can be part of; transform it in that function, or leave it as it is"
            )
