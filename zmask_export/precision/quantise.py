"""int8 in a network's graph: Q/DQ at every convolution and linear layer, by ONNX Runtime's quantiser.

As TensorRT takes it: symmetric; weights in int8 per output channel; activations by the range that they
have on given images; biases, and what stands between the products, in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorsData,
    create_calibrator,
)

from zmask_export.artifacts.scratch import scratch
from zmask_export.backends.runner import Arrays
from zmask_export.errors import CompileError
from zmask_export.fuse.suppression import lower_suppression
from zmask_export.precision.region import PRODUCTS
from zmask_export.spec import KEPT

_OPERATORS = sorted(PRODUCTS)
_FORM = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    # A product's result stays float32, as z-scores, sums and a tail of float32 read it.
    "OpTypesToExcludeOutputQuantization": _OPERATORS,
    "QDQDisableWeightAdjustForInt32Bias": True,
}


def quantise(model: ir.Model, images: Iterable[NDArray[np.float32]]) -> ir.Model:
    """A network with int8 products, but for those whose names say that they stay float32.

    Args:
        model: from ``export_bare``; consumed.
        images: float32 (N, 3, H, W) in [0, 1], of the network's size; the ranges are theirs.

    Raises:
        CompileError: the quantiser refuses the graph.
    """
    constants = set(model.graph.initializers.values())
    products = [
        node.name or ""
        for node in model.graph
        if node.op_type in PRODUCTS
        and node.inputs[1] in constants
        and not (node.name or "").endswith(KEPT)
    ]
    proto = ir.serde.serialize_model(model)
    # The quantiser warns of every value whose type it cannot infer, such as what a suppression gives.
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        quantizer = QDQQuantizer(
            proto,
            True,  # weights per output channel
            False,  # all 8 bits
            QuantType.QInt8,
            QuantType.QInt8,
            _ranges(model, images),
            products,
            [],
            _OPERATORS,
            _FORM,
        )
        quantizer.quantize_model()
    except Exception as exc:  # the quantiser's errors share no base class but this
        raise CompileError(
            f"The network cannot be quantised ({' '.join(str(exc).split())[:300]}).",
            fix="Choose --precision fp16 or fp32.",
        ) from exc
    finally:
        root.setLevel(level)
    quantised: onnx.ModelProto = quantizer.model.model
    found = ir.serde.deserialize_model(quantised)
    _leave_to_products(found.graph)
    return TopologicalSortPass()(found).model


def _leave_to_products(graph: ir.Graph) -> None:
    """Give every product a pair of Q/DQ of its own, and everything else the value in front of the pair.

    The quantiser lets all that reads a value read it quantised: a tap would lose what goes beyond the
    range, which is what it is tapped for. And a pair that two parts of a gated graph share stands in
    another branch than one of its products.
    """
    for pair in [node for node in graph if node.op_type == "DequantizeLinear"]:
        rounding = pair.inputs[0].producer() if pair.inputs[0] is not None else None
        value = rounding.inputs[0] if rounding is not None else None
        if rounding is None or value is None:
            continue  # a weight
        full, short = value, pair.outputs[0]
        if short.is_graph_output():
            graph.outputs[graph.outputs.index(short)] = full
            short.name, full.name = f"{short.name}/int8", short.name
            full.type, full.shape = short.type, short.shape
        seen = False
        for reader, index in list(short.uses()):
            if reader.op_type not in PRODUCTS:
                reader.replace_input_with(index, full)
            elif seen:
                reader.replace_input_with(index, _again(graph, rounding, pair, reader))
            seen = seen or reader.op_type in PRODUCTS


def _again(graph: ir.Graph, rounding: ir.Node, pair: ir.Node, reader: ir.Node) -> ir.Value:
    """A second pair, in front of ``reader``."""
    value = rounding.inputs[0]
    short = pair.outputs[0]
    for node in (rounding, pair):
        copy = ir.node(
            node.op_type, inputs=[value, *node.inputs[1:]], attributes=dict(node.attributes)
        )
        copy.name = f"{node.name}/{reader.name}"
        value = short = copy.outputs[0]
        short.name = f"{copy.name}:0"
        short.type, short.shape = node.outputs[0].type, node.outputs[0].shape
        graph.insert_before(reader, copy)
    return short


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Images as the calibrator asks for them."""

    def __init__(self, images: Iterable[NDArray[np.float32]]) -> None:
        self._images: Iterator[NDArray[np.float32]] = iter(images)

    def get_next(self) -> Arrays | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def _ranges(model: ir.Model, images: Iterable[NDArray[np.float32]]) -> TensorsData:
    """Least and greatest value of what every product reads, over all images; ``model`` is consumed."""
    # What runs has the suppression in plain operators; names of values stay.
    lower_suppression(model)
    with scratch("ranges") as folder:
        plain = folder / "plain.onnx"
        plain.write_bytes(ir.serde.serialize_model(model).SerializeToString())
        calibrator = create_calibrator(
            plain, _OPERATORS, str(folder / "watched.onnx"), CalibrationMethod.MinMax
        )
        calibrator.collect_data(_Reader(images))
        return calibrator.compute_data()
