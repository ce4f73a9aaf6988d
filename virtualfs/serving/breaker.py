"""Circuit breaker: what keeps failing is left alone for a while, then tried by one caller."""

from __future__ import annotations

import threading
import time

__all__ = ["Breaker"]


class Breaker:
    """Counts failures in a row; when there are `patience`, refuses until a pause is over.

    After the pause one caller is let through (half-open). Its success closes the breaker, its
    failure doubles the pause.

    Parameters
    ----------
    first, longest
        Seconds that the first pause takes, and the longest.
    probe
        Seconds after which another caller may try, if the one let through never reports.
    """

    def __init__(
        self, patience: int = 3, first: float = 0.5, longest: float = 8.0, probe: float = 10.0
    ) -> None:
        self._patience = patience
        self._first = first
        self._longest = longest
        self._probe = probe
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self.error: Exception | None = None
        """The newest failure; None while all is well."""

    def is_open(self) -> bool:
        """Tell whether it would refuse, without trying."""
        return self._failures >= self._patience and time.monotonic() < self._until

    def allows(self) -> bool:
        """Tell whether the caller may try; it then says how that went."""
        if self._failures < self._patience:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._until:
                return False
            self._until = now + self._probe
            return True

    def succeeded(self) -> None:
        """Close: all is well."""
        if self._failures:
            with self._lock:
                self._failures, self._until, self.error = 0, 0.0, None

    def failed(self, error: Exception) -> None:
        """Count a failure."""
        with self._lock:
            self._failures += 1
            self.error = error
            over = self._failures - self._patience
            if over >= 0:
                pause = min(self._first * 2 ** min(over, 16), self._longest)
                self._until = time.monotonic() + pause
