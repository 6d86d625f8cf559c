"""Tiny detectors' graphs, exported once a test run."""

from __future__ import annotations

import functools

from tests.attack.detectors import PATHS, PREPROCESS, SIZE, detector
from tests.small import to_bytes
from zmask_export.export.bare import export_bare
from zmask_export.models.detection.network import DetectorNetwork, PlainDetector


@functools.cache
def exported_detector(kind: str) -> bytes:
    """The ONNX file of a tiny detector with random weights."""
    bare = DetectorNetwork(detector(kind), PREPROCESS, dict(PATHS))
    return to_bytes(export_bare(PlainDetector(bare, SIZE), SIZE))
