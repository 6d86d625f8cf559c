"""A tiny segmentation network, its calibration and its images, for tests that need a real graph."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from zmask_export.artifacts.calibration import FORMAT_VERSION, Calibration, CalibrationHeader
from zmask_export.backends.runner import Arrays
from zmask_export.defense.zmask import ZMask
from zmask_export.export.bare import export_bare
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import DefenseSpec, Fill, Policy, Preprocess, Registration

SIZE = (48, 64)
CLASSES = 5
PATHS = {"stem": "stem", "mid": "mid", "tip": "tip"}
PREPROCESS = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


class TinySegmenter(nn.Module):
    """Three convolutions and a head: 8 channels at 1/2, 32 at 1/4, 16 at 1/8 of the input."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.mid = nn.Sequential(nn.Conv2d(8, 32, 3, 2, 1), nn.ReLU(inplace=True))
        self.tip = nn.Conv2d(32, 16, 3, 2, 1)
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        tip = self.tip(self.mid(F.relu(self.stem(x))))
        return F.interpolate(self.head(F.relu(tip)), scale_factor=4.0, mode="bilinear")


def tiny_bare(seed: int = 0) -> BareNetwork:
    """The tiny network with seeded weights and all its taps."""
    torch.manual_seed(seed)
    return BareNetwork(TinySegmenter(), PREPROCESS, dict(PATHS))


def tiny_defense(
    registration: Registration = "aligned", fill: Fill = "black", corners: int = 0
) -> DefenseSpec:
    """S and D share the tap ``mid`` and the first kernel."""
    return DefenseSpec(
        shallow=("stem", "mid"),
        deep=("mid", "tip"),
        shallow_kernels=((6, 8), (3, 4), (2, 3)),
        deep_kernels=((6, 8), (4, 5)),
        grid=(12, 17),
        registration=registration,
        fill=fill,
        corners=corners,
    )


def tiny_images(count: int = 4, seed: int = 1) -> NDArray[np.uint8]:
    """Smooth pictures (N, H, W, 3); every second one carries a patch of noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, 3, 4, 5)))
    smooth = F.interpolate(coarse, size=SIZE, mode="bilinear") * 0.6 + 0.2
    images = (smooth.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    for index in range(1, count, 2):
        top, left = rng.integers(0, SIZE[0] - 20), rng.integers(0, SIZE[1] - 20)
        images[index, top : top + 20, left : left + 20] = rng.integers(0, 2, (20, 20, 3)) * 255
    return images


def as_float(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def random_calibration(
    bare: BareNetwork,
    defense: DefenseSpec,
    *,
    size: tuple[int, int] = SIZE,
    threshold: float = 1.0,
    seed: int = 2,
) -> Calibration:
    """Statistics of random pictures, one dead channel in the first tap, made-up fusion parameters."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.random((2, 3, *size), np.float32)) * 0.3 + 0.35
    with torch.inference_mode():
        _, features = bare(noise)
    mean = {t: features[t].mean(dim=(0, 2, 3)).numpy().copy() for t in defense.taps}
    std = {t: features[t].std(dim=(0, 2, 3)).numpy().copy() for t in defense.taps}
    std[defense.taps[0]][0] = 0.0
    header = CalibrationHeader(
        format_version=FORMAT_VERSION,
        tool_version="test",
        model="tiny",
        classes=CLASSES,
        weights_sha256="0" * 64,
        preprocess=bare.preprocess,
        input_size=size,
        defense=defense,
        images=2,
        dataset_sha256="1" * 64,
        threshold=threshold,
    )
    fusion = np.array([2.0, -0.5, 2.0, 0.5, 3.0, -1.0, 4.0, 0.5], np.float32)
    return Calibration(header, mean, std, fusion)


def split_flags(bare: BareNetwork, calibration: Calibration, images: Tensor) -> Calibration:
    """The calibration with a threshold in the widest gap between the images' scores."""
    with torch.inference_mode():
        scores = np.sort(ZMask(bare, calibration, Policy.DETECT)(images)["score"].numpy())
    gap = int(np.diff(scores).argmax())
    return calibration.with_header(threshold=float(scores[gap : gap + 2].mean()))


def reference(
    bare: BareNetwork, calibration: Calibration, policy: Policy, images: Tensor
) -> Arrays:
    """All outputs of the literal form."""
    with torch.inference_mode():
        outputs = ZMask(bare, calibration, policy)(images)
    return {name: value.numpy() for name, value in outputs.items()}


def fresh(model: bytes) -> ir.Model:
    """A model of its own from an exported graph's bytes: fusing consumes one."""
    return ir.serde.deserialize_model(onnx.load_from_string(model))


def to_bytes(model: ir.Model) -> bytes:
    """The ONNX file of a model."""
    return ir.serde.serialize_model(model).SerializeToString(deterministic=True)


@functools.cache
def exported(batch: int | None = None, seed: int = 0) -> bytes:
    """The ONNX file of the tiny network, exported once per test run."""
    return to_bytes(export_bare(tiny_bare(seed), SIZE, batch))
