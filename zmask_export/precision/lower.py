"""A network's graph in the precision that was asked for. What is fused onto it later stays float32."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from zmask_export.precision.half import lower_types
from zmask_export.precision.quantise import quantise
from zmask_export.precision.region import SHARES, first_products, name_kept, products_to_taps
from zmask_export.spec import Precision


def lower(model: ir.Model, precision: Precision, images: Iterable[NDArray[np.float32]]) -> ir.Model:
    """The network with its products in ``precision``; image, taps and outputs stay float32.

    So do the products that :mod:`zmask_export.precision.region` keeps. tf32 is float32 in the graph: it is
    the engine's arithmetic.

    Args:
        model: from ``export_bare``; consumed.
        precision: which.
        images: float32 (N, 3, H, W) in [0, 1]; read for int8 alone, which takes its ranges from them.

    Raises:
        CompileError: the network does not fit the precision.
    """
    if precision == "fp32" or precision == "tf32":
        return model
    graph = model.graph
    name_kept(first_products(graph) | products_to_taps(graph, SHARES.get(precision, 0.0)))
    if precision == "int8":
        return quantise(model, images)
    lower_types(model, precision)
    return model
