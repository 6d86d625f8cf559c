from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
import torch

from tests.small import SIZE, as_float, tiny_bare, tiny_images, to_bytes
from zmask_export.backends import tensorrt
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.tensorrt import BatchRange, compile_engine
from zmask_export.defense.baselines.fpda import Fpda
from zmask_export.defense.baselines.hyperneuron import HyperNeuron
from zmask_export.defense.baselines.lgs import LocalGradientsSmoothing
from zmask_export.defense.baselines.masknet import MaskNet
from zmask_export.errors import ShapeError, UsageError
from zmask_export.export.baselines import export_detectors, export_filter
from zmask_export.fuse.batch import fix_batch

TAP = "tip"
ODD = (37, 52)
IMAGES = as_float(tiny_images(6))


@functools.cache
def _rival(name: str) -> LocalGradientsSmoothing | MaskNet:
    if name == "lgs":
        return LocalGradientsSmoothing()
    torch.manual_seed(0)
    masknet = MaskNet()
    torch.nn.init.normal_(masknet.head.weight, std=0.3)
    for module in masknet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one batch is what the norms go by
    with torch.no_grad():
        masknet(torch.rand(4, 3, *SIZE))
    return masknet.eval()


@functools.cache
def _filter(name: str) -> bytes:
    return to_bytes(export_filter(_rival(name), ODD))


@functools.cache
def _detectors() -> dict[str, HyperNeuron | Fpda]:
    with torch.inference_mode():
        h = tiny_bare()(torch.from_numpy(IMAGES))[1][TAP]
    std = h.std(0, correction=0)
    std[0, 0, 0] = 0
    mean, deviation = h.mean(1).mean(0), h.mean(1).std(0, correction=0)
    return {
        "hyperneuron": HyperNeuron(h.mean(0), std),
        "fpda": Fpda(mean, deviation),
        "fpda_positive": Fpda(mean, deviation, positive=True),
    }


@functools.cache
def _scored() -> bytes:
    return to_bytes(export_detectors(tiny_bare(), TAP, _detectors(), SIZE))


@pytest.mark.parametrize(("name", "atol"), [("lgs", 1e-6), ("masknet", 1e-4)])
def test_a_filter_gives_what_its_module_gives(name: str, atol: float) -> None:
    # Half of an odd side makes MaskNet's resizing round its places, which costs a digit.
    for count in (1, 2, 6):
        images = np.ascontiguousarray(IMAGES[6 - count :, :, : ODD[0], : ODD[1]])
        got = OnnxRuntimeRunner(_filter(name)).run({"image": images})
        with torch.inference_mode():
            mask = _rival(name).mask(torch.from_numpy(images)).numpy()
        assert list(got) == ["protected", "rival_mask"]
        assert mask.min() < 0.5 < mask.max()
        np.testing.assert_allclose(got["rival_mask"], mask, rtol=1e-5, atol=atol)
        np.testing.assert_allclose(got["protected"], images * mask, rtol=1e-5, atol=atol)


def test_detectors_score_what_their_modules_score() -> None:
    bare = tiny_bare()
    for count in (1, 4):
        images = IMAGES[:count]
        got = OnnxRuntimeRunner(_scored()).run({"image": images})
        with torch.inference_mode():
            outputs, features = bare(torch.from_numpy(images))
            expected = {f"score.{n}": d(features[TAP]) for n, d in _detectors().items()}
        assert list(got) == ["logits", *expected]
        np.testing.assert_allclose(got["logits"], outputs["logits"], rtol=1e-4, atol=1e-5)
        for name, score in expected.items():
            assert got[name].shape == (count,)
            np.testing.assert_allclose(got[name], score, rtol=1e-5, err_msg=name)


def _models() -> dict[str, bytes]:
    return {"lgs": _filter("lgs"), "masknet": _filter("masknet"), "detectors": _scored()}


def test_graphs_pass_the_checker() -> None:
    for model in _models().values():
        onnx.checker.check_model(model, full_check=True)


def test_a_batch_may_be_fixed() -> None:
    graph = onnx.load_from_string(to_bytes(export_filter(_rival("lgs"), SIZE, batch=3))).graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 3


@pytest.mark.skipif(
    tensorrt.available("tensorrt-rtx") is not None, reason="tensorrt-rtx is not on this platform"
)
@pytest.mark.parametrize("name", ["lgs", "masknet", "detectors"])
def test_graphs_compile(name: str) -> None:
    model = _models()[name]
    for batch, given in ((BatchRange(largest=4), model), (None, fix_batch(model, 1))):
        assert len(compile_engine(given, "tensorrt-rtx", batch=batch).data) > 10_000


def test_a_tap_that_the_network_does_not_read_is_refused() -> None:
    with pytest.raises(UsageError, match="'nose'"):
        export_detectors(tiny_bare(), "nose", _detectors(), SIZE)


def test_detectors_of_another_layer_are_refused() -> None:
    with pytest.raises(ShapeError, match="these are"):
        export_detectors(tiny_bare(), "mid", _detectors(), SIZE)
