"""How long stages say how far they are, without knowing who listens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

Advance = Callable[..., None]
"""Called with the number of finished items, and optionally a note to show."""


class Reporter(Protocol):
    """Shows progress and notes."""

    def bar(self, label: str, total: int) -> contextlib.AbstractContextManager[Advance]:
        """A progress bar."""
        ...

    def note(self, text: str) -> None:
        """One line of information."""
        ...


class Silent:
    """A reporter that shows nothing."""

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        yield lambda done, note="": None

    def note(self, text: str) -> None:
        """Nothing."""
