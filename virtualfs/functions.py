"""Python functions of on-demand views: found by import path, allowed by name, told by their source.

A registry may be written by others, so that a stored import path runs only if the configuration
allows its module: ``[python] modules = ["transforms"]``.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.plan import ResolvedOnDemand
from virtualfs.dtypes import nullable_pandas
from virtualfs.errors import DefinitionError, PermissionDeniedError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PythonFunctions"]

_IMPORTING = threading.RLock()


class PythonFunctions:
    """The Python functions that one project may run.

    Parameters
    ----------
    modules
        The modules that are allowed; submodules of them are too.
    folder
        The project's folder, from which modules may be imported.
    """

    def __init__(self, modules: Sequence[str], folder: Path) -> None:
        self._modules = tuple(modules)
        self._folder = folder
        self._known: dict[str, tuple[Callable[..., Any], str]] = {}

    def source_hash(self, path: str, where: str) -> str:
        """Return the hash of a function's source, and of what it uses in its own module.

        Comments and layout do not count.

        Raises
        ------
        DefinitionError, PermissionDeniedError
            There is no such function; its module is not allowed.
        """
        return self._function(path, where)[1]

    def compute(self, view: ResolvedOnDemand, inputs: pa.Table) -> pa.Table:
        """Return a view's features for a table of its inputs, row by row in order.

        Raises
        ------
        DefinitionError
            The function is another than was planned, fails, or returns something else than the
            view's features.
        """
        import pyarrow as pa

        where = f"on-demand feature view {view.label}: {view.function}"
        function, source = self._function(str(view.function), where)
        if source != view.source_hash:
            raise DefinitionError(
                f"{where} is not what it was when the view was applied: its source has changed; "
                "apply again, or install the code that was applied"
            )
        if view.mode == "pandas":
            given: Any = inputs.to_pandas(types_mapper=nullable_pandas)
        else:
            given = inputs
        try:
            found = function(given)
        except Exception as error:
            raise DefinitionError(f"{where} failed: {type(error).__name__}: {error}") from error
        if view.mode == "pandas" and hasattr(found, "to_frame") and not hasattr(found, "columns"):
            found = found.to_frame(view.features[0].name)
        missing = [n for n in view.feature_names if n not in getattr(found, "column_names", found)]
        if missing:
            raise DefinitionError(f"{where} returned no column {', '.join(missing)}")
        try:
            table = found if isinstance(found, pa.Table) else pa.Table.from_pandas(
                found[list(view.feature_names)], self._schema(view), preserve_index=False
            )  # fmt: skip
            table = table.select(view.feature_names).cast(self._schema(view))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise DefinitionError(
                f"{where} returned what does not fit the features' data types: {error}"
            ) from None
        if table.num_rows != inputs.num_rows:
            raise DefinitionError(
                f"{where} returned {table.num_rows} rows for {inputs.num_rows}; it must return one "
                "for each, in their order"
            )
        return table.replace_schema_metadata(None)

    def _schema(self, view: ResolvedOnDemand) -> pa.Schema:
        import ibis
        import pyarrow as pa

        return pa.schema([(f.name, ibis.dtype(f.dtype).to_pyarrow()) for f in view.features])

    def _function(self, path: str, where: str) -> tuple[Callable[..., Any], str]:
        module_name, _, name = path.partition(":")
        if not any(f"{module_name}.".startswith(f"{allowed}.") for allowed in self._modules):
            raise PermissionDeniedError(
                f"{where}: the module {module_name!r} is not allowed to run here; add it to "
                f'virtualfs.toml if it should: [python] modules = ["{module_name}"]'
            )
        if path not in self._known:
            with _IMPORTING, self._importable():
                try:
                    module = importlib.import_module(module_name)
                except Exception as error:
                    raise DefinitionError(
                        f"{where}: importing {module_name!r} failed: "
                        f"{type(error).__name__}: {error}"
                    ) from error
            function = getattr(module, name, None)
            if not callable(function):
                raise DefinitionError(f"{where}: {module_name!r} has no function {name!r}")
            self._known[path] = function, _source_hash(module, name, where)
        return self._known[path]

    @contextmanager
    def _importable(self) -> Iterator[None]:
        folder = str(self._folder)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)


def _source_hash(module: Any, name: str, where: str) -> str:
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        raise DefinitionError(
            f"{where}: the source of {module.__name__!r} cannot be read, and versions go by it; "
            "wrap the function in a module of your own"
        ) from None
    binders: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for bound in _bound_names(statement):
            binders.setdefault(bound, []).append(statement)
    used: dict[ast.stmt, None] = {}
    waiting = [name]
    while waiting:
        for statement in binders.pop(waiting.pop(), ()):
            if statement not in used:
                used[statement] = None
                waiting += [n.id for n in ast.walk(statement) if isinstance(n, ast.Name)]
    texts = [ast.unparse(statement) for statement in tree.body if statement in used]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _bound_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [(item.asname or item.name).partition(".")[0] for item in statement.names]
    return [
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
