"""FeatureStore: the one object most users meet. A facade; the work is done below it."""

from __future__ import annotations

from virtualfs.store.defining import Defining
from virtualfs.store.looking import Looking
from virtualfs.store.online import Online
from virtualfs.store.training import Training

__all__ = ["FeatureStore"]


class FeatureStore(Defining, Looking, Training, Online):
    """A project's features: planned, applied, built into training sets, read online.

    Parameters
    ----------
    config
        Path of ``virtualfs.toml`` or of its folder, or a :class:`virtualfs.config.Config`; found
        upward from the current folder if None. With `connections` and no file at all, the project
        is named after the current folder and every setting has its default.
    connections
        Ibis connections of your own, by warehouse name. They stay yours: they are not closed.
    environment
        The environment that is read and applied to; the configuration's when None.
    revision
        Read the registry as it was at this revision, of any environment.

    Raises
    ------
    ConfigError
        There is no configuration, or it is wrong.
    """
