"""How long to wait before the next try: doubling, jittered, and never less than the server asks for.

Jitter keeps the consumers of a restarted server from coming back all at once.
"""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Grows from 0.1 s to 30 s."""

    #: The first step, in seconds.
    FIRST = 0.1
    #: The longest step.
    LONGEST = 30.0
    #: More than this is not waited, whatever the server asks for.
    PATIENCE = 600.0

    def __init__(self) -> None:
        self._step = self.FIRST

    def next(self, asked: float | None = None) -> float:
        """Between half the step and the step, and at least ``asked``, plus up to a tenth of that."""
        own = self._step * random.uniform(0.5, 1.0)
        self._step = min(2 * self._step, self.LONGEST)
        return max(own, min(asked or 0.0, self.PATIENCE) * random.uniform(1.0, 1.1))

    def reset(self) -> None:
        """Begins anew, after things went well."""
        self._step = self.FIRST
