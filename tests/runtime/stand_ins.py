"""Stand-ins for what a test of the runtime does not need: a GPU, a graph, a bundle's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmask_export.artifacts.bundle import CheckedBundle
from zmask_export.artifacts.manifest import EngineInfo, Manifest
from zmask_export.backends.runner import Arrays, DeviceArray, Inputs
from zmask_export.backends.tensorrt import Flavour
from zmask_export.spec import Policy, Preprocess, Tolerances

SIZE = (4, 6)
CLASSES = ("road", "car", "tree")
TOLERANCES = Tolerances(
    logits_atol=0, logits_rtol=0, logits_outliers=0, score_rtol=0, mask_iou=1, heatmap_rtol=0
)


class OnGpu:
    """An array of main memory that says it lies on GPU 1."""

    def __init__(self, source: NDArray[np.float32]) -> None:
        self.source = source

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1

    def __dlpack__(self, **_: object) -> Any:
        return self.source.__dlpack__()


class Recorder:
    """A runner that keeps what it was given, and scores an image by its first value.

    Args:
        more: outputs beside those that every engine has, for a batch of any size.
    """

    def __init__(self, **more: NDArray[Any]) -> None:
        self.name = "recorder"
        self.more = more
        self.seen: list[Inputs] = []
        self.closed = 0

    def run(self, inputs: Inputs) -> Arrays:
        self.seen.append(dict(inputs))
        image, limit = inputs["image"], inputs["threshold"]
        assert isinstance(limit, np.ndarray)
        count = len(image)
        # Nothing looks into an array on a GPU.
        score = np.full(count, np.nan, np.float32)
        if not isinstance(image, DeviceArray):
            score = image[:, 0, 0, 0]
        maps = np.arange(count * 6, dtype=np.float32).reshape(count, 1, 2, 3)
        mask = np.ones((count, 1, *SIZE), np.float32)
        mask[score > limit[0], :, :2, :3] = 0  # a quarter of the image
        made = {
            "mask": mask,
            "score": score,
            "flag": score > limit[0],
            "soft_mask": maps,
            "heatmap_shallow": maps + 100,
            "heatmap_deep": maps + 200,
        }
        return made | {name: value[:count] for name, value in self.more.items()}

    def close(self) -> None:
        self.closed += 1


class Opened(Recorder):
    """A recorder that remembers how it was opened."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__()
        self.arguments = arguments
        self.options = options


def engine_info(flavour: Flavour, batch: tuple[int, int, int] | int = (1, 2, 8)) -> EngineInfo:
    """A compiled engine for two generations of GPUs."""
    return EngineInfo(
        file=f"protected.{flavour}.engine", flavour=flavour, version="10",
        capabilities=("8.6", "8.9"), activation_bytes=None, weight_bytes=None, tf32=False, batch=batch,
    )  # fmt: skip


def manifest(*engines: EngineInfo, **changes: Any) -> Manifest:
    """A manifest of a small image, with the threshold 0.5."""
    made = Manifest(
        schema_version=1, tool_version="test", name="small", model="tiny", policy=Policy.GATED,
        precision="fp32", opset=20, classes=CLASSES, input_size=SIZE, batch=None,
        preprocess=Preprocess(mean=(0, 0, 0), std=(1, 1, 1)), fill="black", threshold=0.5,
        inputs=(), outputs=(), engines=engines, tolerances=TOLERANCES,
        weights_sha256="0" * 64, calibration_sha256="0" * 64, versions={}, files={},
    )  # fmt: skip
    return made.model_copy(update=changes)


def checked(of: Manifest, *files: str) -> CheckedBundle:
    """A bundle that was read, each of whose files holds its own name."""
    kept = {name: name.encode() for name in files}
    return CheckedBundle(Path("small"), of, b"", None, False, kept)
