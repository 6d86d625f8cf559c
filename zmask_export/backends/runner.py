"""The one contract of everything that runs a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Runner(Protocol):
    """Runs a protected graph.

    Attributes:
        name: what runs it, such as ``onnxruntime-cpu``.
    """

    name: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """All outputs by name.

        Args:
            inputs: ``image`` float32 (N, 3, H, W) in [0, 1], ``threshold`` float32 (1,).

        Raises:
            BackendError: the runner failed.
            ShapeError: an input has another shape or dtype than the graph's.
        """
        ...
