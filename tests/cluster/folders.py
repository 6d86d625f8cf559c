"""Image folders that do to a worker what machines do; workers import them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from zmask_export.data.images import Frame, ImageFolder


class Deadly(ImageFolder):
    """Kills the process that reads the image ``at``: once, or whenever it is read."""

    def __init__(
        self, root: Path, size: tuple[int, int], marker: Path, at: str, once: bool
    ) -> None:
        super().__init__(root, size)
        self.marker, self.at, self.once = marker, at, once

    def _load(self, index: int) -> Frame:
        if self.names[index] == self.at and not (self.once and self.marker.exists()):
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._load(index)


class Broken(ImageFolder):
    """A fault of the program in the worker."""

    def _load(self, index: int) -> Frame:
        raise ZeroDivisionError("a fault")
