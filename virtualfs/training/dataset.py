"""Training datasets: lazy, and run inside the warehouse when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from virtualfs.cached import cached_property
from virtualfs.compiler import sql
from virtualfs.compiler.operations import value_of
from virtualfs.compiler.plan import FeaturePlan, OnDemandSelection, Selection
from virtualfs.compiler.rows import ROW, TIME
from virtualfs.compiler.strategy import fragment
from virtualfs.display import Block, Code, Grid, Note, Shown
from virtualfs.dtypes import nullable_pandas
from virtualfs.errors import UnsupportedByWarehouseError
from virtualfs.files import claim, temporary
from virtualfs.provider import rows_of
from virtualfs.training.diagnosis import Diagnosis
from virtualfs.training.run import run
from virtualfs.training.site import Site, check_in_query, meeting_plan
from virtualfs.training.spine import ClientSpine, SentSpine, Spine, spine_instant

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from virtualfs.definitions.transformation import Transformation
    from virtualfs.training.run import Piece
    from virtualfs.training.saved import TrainingSet
    from virtualfs.training.saving import Shelf

__all__ = ["TrainingDataset"]

BATCH_ROWS = 100_000
_CELLS = 30_000_000
"""Values of features that a stream holds at once: about 250 MB of numbers."""
_ANSWER_ROW = "__answer_row"


@dataclass(frozen=True)
class TrainingDataset(Shown):
    """The spine's rows with the features as of each row's instant.

    Nothing runs until a ``to_*`` method is called. Made by
    :meth:`virtualfs.FeatureStore.get_historical_features`.
    """

    sites: tuple[Site, ...]
    """What each warehouse answers; the first holds the spine, if that lives in a warehouse."""
    spine: Spine
    plan: FeaturePlan
    timestamp: str
    context: Mapping[str, Any]
    selections: Sequence[Selection | OnDemandSelection]
    """What was asked for."""
    shelf: Shelf

    def __repr__(self) -> str:
        return f"TrainingDataset({', '.join((*self.spine.columns, *self.plan.columns))})"

    def _blocks(self) -> list[Block]:
        """Show what is known without asking a warehouse anything."""
        known = all("program" in site.__dict__ for site in self.sites)
        programs = [site.program if known else site.guessed() for site in self.sites]
        heads = ("view", "strategy", "rules")
        if not known:
            heads = ("view", "strategy, unless the tables' sizes speak for another", "rules")
        views = [
            (part.view.label, str(compiled.strategy).partition(" (")[0], part.rules())
            for site, program in zip(self.sites, programs, strict=True)
            for part, compiled in zip(site.plan.parts, program.parts, strict=True)
        ]
        views += [(part.view.label, "on demand", part.rules()) for part in self.plan.on_demand]
        owners = {output: part.view.label for part in self.plan.uses for _, output in part.outputs}
        dtypes = self.plan.dtypes()
        features = [(name, dtypes[name], owners[name]) for name in self.plan.columns]
        held = "in the warehouse" if self.sites[0].holds_spine else "of the client"
        rows = getattr(self.spine, "rows", None)
        size = f"{rows:,} rows " if isinstance(rows, int) else ""
        return [
            Note("Training dataset, not run until a to_* method is called", strong=True),
            Note(f"Spine: {size}{held}, with {', '.join(self.spine.columns)}"),
            *(Note(f"DOUBT: {doubt}.") for doubt in self.context["doubts"]),
            Grid(("feature", "type", "view"), features),
            Grid(heads, views),
            *(
                Code(program.text(), "SQL" if len(self.sites) == 1 else f"SQL for {site.title}")
                for site, program in zip(self.sites, programs, strict=True)
            ),
        ]

    @cached_property
    def _meeting(self) -> Site | None:
        """What is computed where parts meet; None where one warehouse answers all, or nothing is.

        Its spine comes with the answers.
        """
        plan = meeting_plan(self.plan) if len(self.sites) > 1 else None
        if plan is None:
            return None
        spine = SentSpine(tuple(plan.request), lambda: None)
        return Site(self.shelf.meeting_place(), plan, spine, self.timestamp, is_alone=False)

    @property
    def _stops(self) -> tuple[tuple[str, Site], ...]:
        """All sites that compute, with what each is called."""
        if len(self.sites) == 1:
            return (("", self.sites[0]),)
        stops = [(f"warehouse {site.title}", site) for site in self.sites]
        if self._meeting is not None:
            engine = self._meeting.warehouse.capabilities.engine
            stops.append((f"where the parts meet, in this process ({engine})", self._meeting))
        return tuple(stops)

    def sql(self) -> str:
        """Return the SQL that a ``to_*`` method runs, statement by statement.

        ``__virtualfs_spine`` stands for the spine's temporary table, which has another name on
        each run. ``to_table`` joins the same parts on the row id, in one statement. Over several
        warehouses, the statements of each.
        """
        texts = [(title, site.program.text()) for title, site in self._stops]
        return "\n".join(f"-- {title}\n{text}" if title else text for title, text in texts)

    def explain(self, *, engine: bool = True) -> str:
        """Return, view by view, how the features are found, by which rules, and why so.

        Parameters
        ----------
        engine
            Whether the engine's own plan of each statement follows. For that a spine that the
            client holds is sent to its warehouse; no statement is run.
        """
        lines: list[str] = []
        for number, site in enumerate(self.sites):
            lines += ["" for _ in range(bool(number))]
            lines.append(f"Warehouse {site.title}")
            if len(self.sites) == 1 or site.holds_spine:
                where = "in the warehouse" if site.holds_spine else "sent by the client"
                lines.append(f"Spine: {where}, instants in {self.timestamp!r}")
                lines += [f"DOUBT: {doubt}" for doubt in self.context["doubts"] * (number == 0)]
            elif site.has_work:
                sent = list(site.plan.key_columns)
                sent += [f"instants from {self.timestamp!r}"] * site.plan.needs_time
                lines.append(f"Spine: of it are sent {', '.join(sent) or 'row ids'}")
            lines += [f"{part.view}: {part.strategy}; {part.rules}" for part in site.program.parts]
        if len(self.sites) > 1:
            lines += ["", "In this process: the answers are laid beside each other by row id"]
            if not self.sites[0].holds_spine:
                lines += [f"DOUBT: {doubt}" for doubt in self.context["doubts"]]
        lines += [f"{part.view.label}: {part.rules()}" for part in self.plan.on_demand]
        if engine:
            for site in self.sites:
                for answer, plan in zip(site.program.answers, site.engine_plans(), strict=True):
                    lines.append(f"\n-- {answer.view}\n{plan}")
        return "\n".join(lines)

    def diagnose(self, *, samples: int = 3) -> Diagnosis:
        """Count, view by view and in the warehouse, why values are missing.

        Parameters
        ----------
        samples
            How many spine rows to show of each reason.
        """
        sites = self.sites
        if len(sites) > 1 and sites[0].holds_spine:
            with sites[0].session() as session:
                (own,) = sites[0].spine_pieces(session, None)
            rows = ClientSpine(own[0], self.spine.columns)
            sites = tuple(replace(site, spine=rows) for site in sites)
        found = {part: view for site in sites for part, view in site.diagnosed(samples).items()}
        return Diagnosis(tuple(found[part] for part in self.plan.parts))

    @property
    def metadata(self) -> dict[str, Any]:
        """What it takes to reproduce the dataset: names, versions, revision, SQL and its hash."""
        text = self.sql()
        parts = self.plan.parts
        blind = [
            part.view.name
            for part in parts
            if part.late_data == "exclude" and not part.judges_arrival
        ]
        return {
            **self.context,
            "views": {part.view.name: part.view.version or "draft" for part in self.plan.uses},
            "features": list(self.plan.columns),
            "timestamp": self.timestamp,
            "late_data": parts[0].late_data if parts else "include",
            "judged_by_event_time_alone": blind,
            "sql": text,
            "sql_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }

    @property
    def expr(self) -> ir.Table:
        """The dataset as one Ibis table of the warehouse's connection, to compose with."""
        site = self._only_site("one expression")
        connection = site.warehouse.connection
        capabilities = site.warehouse.capabilities
        spine = self.spine.expression(connection)
        at = spine_instant(spine, self.plan, self.timestamp, capabilities)
        numbered = spine.mutate(**{ROW: capabilities.row_number(), TIME: at})
        keys = [*dict.fromkeys(self.plan.key_columns)]
        narrow = numbered.select(ROW, TIME, *keys)
        result = numbered
        for part in self.plan.parts:
            rows = rows_of(site.warehouse, part.view)
            answer = fragment(narrow, rows, part, capabilities)
            answer = answer.rename(**{_ANSWER_ROW: ROW})
            result = result.left_join(answer, result[ROW] == answer[_ANSWER_ROW])
            result = result.drop(_ANSWER_ROW)
        check_in_query(self.plan)
        for item in self.plan.on_demand:
            for output, tree in item.trees:
                values = {
                    name: result[column].cast(item.view.dtypes[name])
                    for name, column in item.inputs
                }
                result = result.mutate(**{output: value_of(tree, values, capabilities)})
        return result.order_by(ROW).select(*self.spine.columns, *self.plan.columns)

    def _only_site(self, what: str) -> Site:
        if len(self.sites) > 1:
            names = ", ".join(site.title for site in self.sites)
            raise UnsupportedByWarehouseError(
                f"what lies in several warehouses ({names}) cannot become {what} of one of them; "
                "use to_pyarrow(), to_pyarrow_batches() or to_parquet(), where the parts meet"
            )
        return self.sites[0]

    def _pieces(self, rows: int | None) -> Iterator[Piece]:
        return run(self.sites, self._meeting, self.plan, self.shelf.functions, rows)

    def _all(self) -> Piece:
        (result,) = self._pieces(None)
        return result

    def to_pyarrow(self) -> pa.Table:
        """Run and return an Arrow table: the spine's columns, then the features.

        Raises
        ------
        WarehouseError
            The warehouse refuses or cannot be reached.
        """
        _, spine, features = self._all()
        return _beside(spine, features)

    def to_pandas(self) -> pd.DataFrame:
        """Run and return a pandas frame; integers and booleans stay whole beside NULLs.

        A pandas spine keeps its own columns and index untouched.
        """
        client, spine, features = self._all()
        if client is not None and _module(client.original) == "pandas":
            import pandas as pd

            found = features.to_pandas(types_mapper=nullable_pandas)
            found.index = client.original.index
            frame: pd.DataFrame = pd.concat([client.original, found], axis=1)
            return frame
        return _beside(spine, features).to_pandas(types_mapper=nullable_pandas)

    def to_polars(self) -> pl.DataFrame:
        """Run and return a polars frame; needs ``virtualfs[polars]``."""
        try:
            import polars as pl
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "to_polars needs polars; pip install 'virtualfs[polars]'"
            ) from None
        client, spine, features = self._all()
        if client is not None and _module(client.original) == "polars":
            frame: pl.DataFrame = client.original.hstack(pl.DataFrame(pl.from_arrow(features)))
            return frame
        return pl.DataFrame(pl.from_arrow(_beside(spine, features)))

    def to_pyarrow_batches(self, rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        """Run and return the rows as a stream of batches of at most `rows` rows.

        The work is done piece by piece, so a result larger than memory needs little of it. The
        session in the warehouse stays open until the reader is read to its end or let go of
        (``del``; closing a reader does not reach Python).
        """
        import pyarrow as pa

        most = max(BATCH_ROWS, _CELLS // max(len(self.plan.columns), 1))

        def stream() -> Iterator[Any]:
            for _, spine, features in self._pieces(most):
                table = _beside(spine, features)
                yield table.schema
                yield from table.to_batches(max_chunksize=rows)

        batches = stream()
        schema = next(batches)
        return pa.RecordBatchReader.from_batches(
            schema, (item for item in batches if isinstance(item, pa.RecordBatch))
        )

    def to_parquet(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Run and write a Parquet file, whole or not at all; return its path.

        Raises
        ------
        FileExistsError
            Something stands at `path` and `overwrite` is false.
        UnsupportedByWarehouseError
            A column has a type that Parquet lacks.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        target = Path(path)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists; choose another path or pass overwrite=True")
        part = temporary(target)
        try:
            with (
                self.to_pyarrow_batches() as reader,
                pq.ParquetWriter(part, reader.schema, compression="zstd") as writer,
            ):
                for batch in reader:
                    writer.write_batch(batch)
            if overwrite:
                part.replace(target)
            else:
                claim(part, target)
        except pa.ArrowNotImplementedError as error:
            raise UnsupportedByWarehouseError(
                f"Parquet cannot hold one of the columns: {error}; convert it, an interval for "
                "example to seconds, in the feature's expr="
            ) from None
        finally:
            part.unlink(missing_ok=True)
        return target

    def save(
        self,
        name: str,
        *,
        to: Literal["parquet", "table"] = "parquet",
        transformations: Sequence[Transformation] = (),
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> TrainingSet:
        """Run, and keep the result for good, as the next version of a name.

        Parameters
        ----------
        to
            ``"parquet"`` writes a file into the folder or bucket that ``training_sets`` in the
            configuration names; ``"table"`` a table of the warehouse, which must be writable.
        transformations
            What a model is fed instead of the features as they are: :class:`Feature` objects whose
            expressions may hold aggregates over this set, ``standardize("temp")``,
            ``min_max(...)``, ``impute(...)``, ``one_hot(...)``, ``ordinal(...)``. One that has a
            feature's name, and the columns of an encoding, stand in its place; others follow all.
            Their parameters are computed where the set lies, and kept with it.

        Returns
        -------
        TrainingSet
            With the version that it is. Given where features are asked for, it stands for its own,
            transformed.

        Raises
        ------
        DefinitionError
            A transformation does not fit; nothing is kept.
        """
        return self.shelf.save(self, name, to, transformations, description, tags or {})

    def to_table(self, name: str, *, overwrite: bool = False) -> str:
        """Run and write a table inside the warehouse, without a round trip; return its name.

        Raises
        ------
        WarehouseError
            The table exists and `overwrite` is false, or the warehouse is read-only.
        """
        return self.write_table(name, overwrite=overwrite, numbered=False)

    def write_table(self, name: str, *, overwrite: bool, numbered: bool) -> str:
        """Write the table of :meth:`to_table`, perhaps with the number of each row beside it."""
        site = self._only_site("a table")
        check_in_query(self.plan)
        program, capabilities = site.program, site.warehouse.capabilities
        target = sql.text(sql.table_reference(name, capabilities.dialect), capabilities.dialect)
        if program.head and not site.holds_spine:
            raise UnsupportedByWarehouseError(
                f"{capabilities.engine}: without temporary tables only a spine in the "
                "warehouse can become a table; pass the spine as SQL"
            )
        with site.session() as session:
            spine = "" if program.head else site.whole_spine(session)
            create = "CREATE OR REPLACE TABLE" if overwrite else "CREATE TABLE"
            if overwrite and not capabilities.replace_table:
                session.execute(f"DROP TABLE IF EXISTS {target}")
                create = "CREATE TABLE"
            statement = site.statement(session, program.joined(numbered=numbered), spine)
            session.execute(f"{create} {target} AS\n{statement}")
        return name


def _beside(spine: pa.Table, features: pa.Table) -> pa.Table:
    for field, column in zip(features.schema, features.columns, strict=True):
        spine = spine.append_column(field, column)
    return spine


def _module(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
