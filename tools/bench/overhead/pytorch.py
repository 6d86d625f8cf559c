"""What a user would do instead: Z-Mask around the network in PyTorch, eager or with the network compiled.

The cascade is the package's own fast PyTorch form; the literal one has its own comparison.
``torch.compile`` takes the network and its taps; Z-Mask around it stays eager, since it makes its matrices
with numpy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from overhead.cases import Case, Cases, kinds
from overhead.graphs import Graphs
from zmask_export.defense.zmask import ZMask
from zmask_export.models.bare import BareNetwork
from zmask_export.models.taps import Taps
from zmask_export.profiling.frames import THRESHOLDS
from zmask_export.profiling.sessions import Device
from zmask_export.spec import Policy

Form = Literal["pytorch", "pytorch-compile"]

POLICIES = (Policy.DETECT, Policy.GATED)
"""``mask`` is an attacked ``gated`` frame in PyTorch."""


class Tapped(nn.Module):
    """A copy of a bare network whose taps stay open, as ``torch.compile`` wants them.

    ``forward`` is that of :class:`BareNetwork`.
    """

    def __init__(self, bare: BareNetwork) -> None:
        super().__init__()
        self.bare = copy.deepcopy(bare)
        self.taps = Taps(self.bare.network, bare.paths).__enter__()

    def forward(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        outputs = self.bare.predict(image)
        return outputs, dict(self.taps.features)


class Compiled(nn.Module):
    """A compiled network with its taps, in the place of a :class:`BareNetwork`."""

    def __init__(self, bare: BareNetwork) -> None:
        super().__init__()
        self.preprocess = bare.preprocess
        self.traced = torch.compile(Tapped(bare))

    def forward(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        found: tuple[dict[str, Tensor], dict[str, Tensor]] = self.traced(image)
        return found

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """The network's outputs alone."""
        return self.forward(image)[0]


def pytorch_devices() -> tuple[list[Device], str | None]:
    """Devices that PyTorch has here, and why CUDA is not among them."""
    if torch.cuda.is_available():
        return ["cpu", "cuda"], None
    return ["cpu"], "PyTorch finds no GPU."


def pytorch_cases(
    graphs: Graphs, batch: int, device: Device, form: Form
) -> tuple[Cases, str | None]:
    """The network, and Z-Mask around it, in PyTorch; nothing and a reason where it cannot run.

    Args:
        graphs: of the network.
        batch: images a run.
        device: where to.
        form: eager, or with the network compiled.
    """
    compiles = form == "pytorch-compile"
    if compiles and graphs.opened.entry.task == "detection":
        return {}, "torchvision's detectors loop over images and are not traced in one piece."
    calibration = graphs.calibration
    network = graphs.opened.bare(calibration.header.defense)
    # What moves to a GPU is a copy: others still need the network here.
    network = copy.deepcopy(network).to(device) if device == "cuda" else network
    image = torch.from_numpy(graphs.images(batch)).to(device)
    bare: Any = Compiled(network) if compiles else network
    cases: Cases = {}
    for name, frame in kinds(POLICIES):
        case = Case(f"{form}-{device}", name, frame)
        if frame is None:
            cases[case] = _run(bare.predict, image)
        else:
            limit = torch.tensor(THRESHOLDS[frame], device=device)
            zmask = ZMask(bare, calibration, Policy(name), "deployed").to(device)
            cases[case] = _run(zmask, image, limit)
    if compiles:
        try:
            for run in cases.values():
                run()
        except Exception as exc:  # dynamo's and the C++ compiler's errors share no base class
            return {}, f"torch.compile failed: {type(exc).__name__}, {_short(exc)}"
    return cases, None


def _run(function: Callable[..., object], *arguments: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            function(*arguments)
        if arguments[0].is_cuda:
            torch.cuda.synchronize()

    return run


def _short(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:200]
