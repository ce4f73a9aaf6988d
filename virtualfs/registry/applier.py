"""Writing plans: checked, indexed, in one transaction."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable

from virtualfs.errors import PlanConflictError
from virtualfs.registry.indexing import Indexer
from virtualfs.registry.plan import Plan, Revision
from virtualfs.registry.repository import Registry
from virtualfs.registry.state import State

__all__ = ["Applier"]


class Applier:
    """Writes plans to the registry's environment.

    Parameters
    ----------
    forget
        Called when what was read of the registry is no longer so.
    """

    def __init__(self, registry: Registry, indexer: Indexer, forget: Callable[[], None]) -> None:
        self._registry = registry
        self._indexer = indexer
        self._forget = forget

    def apply(self, plan: Plan, *, allow_breaking: bool = True) -> Revision:
        """Write a plan; return the revision.

        Raises
        ------
        DefinitionError, BreakingChangeError
            The plan must not be applied.
        PlanConflictError
            The environment has moved since the plan was made, or the plan is for another one.
        """
        registry = self._registry
        if plan.revision is not None:
            if plan.revision != plan.base:
                plan.check(allow_breaking=allow_breaking)
                base = plan.base or None
                registry.point(plan.environment, base, plan.revision, plan.action)
                self._forget()
            return Revision(plan.revision, plan)
        plan.check(allow_breaking=allow_breaking)
        if plan.environment != registry.environment:
            raise PlanConflictError(
                f"the plan is for environment {plan.environment}, and this store is of environment "
                f"{registry.environment}; plan again"
            )
        if not plan:
            if plan.base and registry.environment not in {e.name for e in registry.environments()}:
                registry.point(registry.environment, None, plan.base, "apply: nothing to change")
            return Revision(plan.base, plan)
        items = [write.item for write in plan.writes if write.item and not write.item.written]
        new = {item.key: item for item in items}
        old = registry.state(plan.base).objects
        # Typed for writing, though it is only read.
        afterwards = ChainMap(new, old)  # type: ignore[arg-type]
        index = self._indexer.index(items, afterwards)
        number = registry.write(
            plan.writes, plan.base, plan.summary, [c.record() for c in plan.changes], index,
            plan.action,
        )  # fmt: skip
        self._forget()
        return Revision(number, plan)

    def indexed(self, state: State) -> State:
        """Return a state, after indexing what was written before there was an index."""
        missing = self._registry.index.missing(state)
        if missing:
            state.objects.load()
            self._registry.index.add(self._indexer.index(missing, state.objects), missing)
        return state
