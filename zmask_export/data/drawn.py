"""Drawn street scenes as an image source: what calibrates and verifies where no images are given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from zmask_export.data.images import Frame
from zmask_export.data.scene import draw_scene
from zmask_export.errors import ImageError


class DrawnScenes:
    """``count`` street scenes of one size (H, W), seeds ``first`` on."""

    def __init__(self, size: tuple[int, int], count: int, first: int = 0) -> None:
        self.size = size
        self.rule = self.version = "drawn"
        self.names = [f"scene-{seed}" for seed in range(first, first + count)]
        self._first = first

    def frames(
        self, start: int = 0, *, on_skip: Callable[[ImageError], None] | None = None
    ) -> Iterator[Frame | None]:
        """The scenes from ``start`` on; none is ever bad."""
        for index in range(start, len(self.names)):
            image = draw_scene(self.size, self._first + index)
            yield Frame(self.names[index], image, hashlib.sha256(image.tobytes()).hexdigest())
