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
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtualfs.compiler.plan import ResolvedOnDemand
from virtualfs.dtypes import nullable_pandas
from virtualfs.errors import DefinitionError, PermissionDeniedError
from virtualfs.forks import renew_in_child

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PythonFunctions"]

_importing = threading.RLock()


def _renew() -> None:
    global _importing
    _importing = threading.RLock()


renew_in_child(_renew)


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
        """Return the hash of the source of a function's module; comments and layout do not count.

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
        try:
            table = _as_table(found, view, self._schema(view))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise DefinitionError(
                f"{where} returned what does not fit the features' data types: {error}"
            ) from None
        except (KeyError, TypeError, ValueError) as error:
            raise DefinitionError(
                f"{where} must return a table with the columns {', '.join(view.feature_names)}, "
                f"each once, and returned {type(found).__name__}: {error}"
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
            self._known[path] = self._loaded(module_name, name, where)
        return self._known[path]

    def _loaded(self, module_name: str, name: str, where: str) -> tuple[Callable[..., Any], str]:
        """Return a function of a module, and the hash of the text that was run to make it."""
        file = self._folder.joinpath(*module_name.split(".")).with_suffix(".py")
        with _importing, self._importable():
            try:
                if file.is_file():
                    text = file.read_text(encoding="utf-8")
                    module = _run(text, file, module_name)
                else:
                    module = importlib.import_module(module_name)
                    text = inspect.getsource(module)
                tree = ast.parse(text)
            except Exception as error:
                raise DefinitionError(
                    f"{where}: importing {module_name!r} failed: {type(error).__name__}: {error}"
                ) from error
        # What a module merely imports is not what it offers: it may be anything.
        defined = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        function = getattr(module, name, None)
        if name not in defined or getattr(function, "__module__", "") != module.__name__:
            raise DefinitionError(f"{where}: {module_name!r} defines no function {name!r}")
        assert callable(function)
        return function, hashlib.sha256(ast.unparse(tree).encode()).hexdigest()

    @contextmanager
    def _importable(self) -> Iterator[None]:
        folder = str(self._folder)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)


def _run(text: str, file: Path, name: str) -> types.ModuleType:
    """Run a project's own module, as it is now, beside whatever else has its name."""
    unique = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    module = types.ModuleType(f"_virtualfs_functions_{unique}.{name}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and pickles look there
    exec(compile(text, str(file), "exec"), module.__dict__)  # noqa: S102 - allowed by name
    return module


def _as_table(found: Any, view: ResolvedOnDemand, schema: pa.Schema) -> pa.Table:
    """Return what a function returned as Arrow, in the features' types."""
    import pyarrow as pa

    names = list(view.feature_names)
    if isinstance(found, pa.Table):
        return found.select(names).cast(schema)
    module = type(found).__module__.partition(".")[0]
    if module == "pandas" and not hasattr(found, "columns"):
        found = found.to_frame(names[0])
    if module != "pandas":
        raise TypeError("expected a pandas frame or an Arrow table")
    return pa.Table.from_pandas(found[names], schema, preserve_index=False)
