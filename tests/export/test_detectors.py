"""Exported detectors, as ONNX Runtime runs them, against torchvision's own forward pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import NameFixPass, TopologicalSortPass
from torch import nn

from tests.attack.detectors import KINDS, PATHS, PREPROCESS, SIZE, STEPS, detector, picture, taught
from tests.conftest import Make
from zmask_export.backends.runner import Arrays
from zmask_export.data.images import ImageFolder, to_float
from zmask_export.export.bare import export_bare
from zmask_export.fuse.suppression import lower_suppression
from zmask_export.models import registry, weights
from zmask_export.models.bare import BareNetwork
from zmask_export.models.detection.network import DetectorNetwork, PlainDetector
from zmask_export.pipeline.network import NetworkOptions, open_network
from zmask_export.presets import find
from zmask_export.spec import DETECTION_OUTPUTS, Size
from zmask_export.verify.detections import compare_detections

IMAGES = 60
LIMITS = find("camvid-retinanet").preset.tolerances["fp32"]
CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"


def _session(bare: BareNetwork, size: Size) -> ort.InferenceSession:
    model = export_bare(bare, size)
    lower_suppression(model)
    for transform in (TopologicalSortPass(), NameFixPass()):
        model = transform(model).model
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    data = ir.serde.serialize_model(model).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _pairs(
    session: ort.InferenceSession, network: nn.Module, images: Sequence[NDArray[np.uint8]]
) -> Iterator[tuple[Arrays, Arrays]]:
    """What torchvision and the graph find in every image, four at a time, batch dimension kept."""
    names = [output.name for output in session.get_outputs()]
    for start in range(0, len(images), 4):
        pixels = to_float(images[start : start + 4])
        found = dict(zip(names, session.run(None, {"image": pixels}), strict=True))
        with torch.inference_mode():
            expected = network(list(torch.from_numpy(pixels)))
        for row, own in enumerate(expected):
            wanted = {name: own[name].numpy()[None] for name in ("boxes", "scores", "labels")}
            wanted["count"] = np.array([len(own["labels"])])
            yield wanted, {name: found[name][row : row + 1] for name in DETECTION_OUTPUTS}


def _require_equal(expected: Arrays, found: Arrays, least: float) -> int:
    """Same detections in the same order within the contract, down to a score; how many they are.

    Two whose scores differ by less than the contract's may change places. Below ``least`` noise lies so
    dense that rounding decides which of two boxes suppresses the other.
    """
    count = int((expected["scores"] >= least).sum())
    assert int(found["count"][0]) >= count
    first, second = ({**one, "count": np.array([count])} for one in (expected, found))
    np.testing.assert_allclose(
        found["scores"][0, :count], expected["scores"][0, :count], atol=1e-4, rtol=0
    )
    worst, alone = compare_detections(first, second, LIMITS)
    assert alone == 0
    assert worst <= 0.05
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_finds_what_torchvision_finds(kind: str, make_once: Make) -> None:
    network = taught(kind, STEPS[kind], make_once)
    pristine = copy.deepcopy(network)
    reference = DetectorNetwork(network, PREPROCESS, dict(PATHS))
    session = _session(PlainDetector(reference, SIZE), SIZE)
    images = [picture(seed, seed % 4).image for seed in range(IMAGES)]
    rng = np.random.default_rng(0)
    images[::10] = [rng.integers(0, 256, image.shape, dtype=np.uint8) for image in images[::10]]
    pairs = list(_pairs(session, pristine, images))
    assert sum(_require_equal(*pair, 0.25) for pair in pairs) > IMAGES
    alone = [compare_detections(a, b, LIMITS)[1] for a, b in pairs]
    assert np.mean(alone) < 0.01


def test_taps_of_a_padded_image_end_with_it() -> None:
    size = (40, 64)  # padded to 64 x 96 after resizing
    reference = DetectorNetwork(detector("retinanet"), PREPROCESS, dict(PATHS))
    frame = reference.frame(size)
    assert frame.padded != frame.inner
    with torch.inference_mode():
        _, features = reference(torch.rand(1, 3, *size))
        _, plain = PlainDetector(reference, size)(torch.rand(1, 3, *size))
    for tap, stride in (("near", 2), ("far", 8)):
        wanted = tuple(-(-side // stride) for side in frame.inner)
        assert tuple(features[tap].shape[2:]) == tuple(plain[tap].shape[2:]) == wanted


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="the CamVid data set is not here")
def test_the_demo_detector_finds_what_torchvision_finds() -> None:
    entry = registry.get("camvid-retinanet")
    opened = open_network(NetworkOptions(model=entry.name))
    assert opened.shipped.weights is not None
    pristine, _ = weights.load_network(entry, opened.shipped.weights)
    session = _session(opened.exportable(), opened.input_size)
    frames = ImageFolder(CAMVID / "val" / "images", opened.input_size, limit=IMAGES).frames()
    images = [frame.image for frame in frames if frame is not None]
    pairs = list(_pairs(session, pristine, images))
    assert sum(_require_equal(*pair, 0.1) for pair in pairs) > 8 * IMAGES
    alone = [compare_detections(a, b, LIMITS)[1] for a, b in pairs]
    assert np.mean(alone) < 0.01
