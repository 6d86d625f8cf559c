"""Triton's configuration of a model, written through Triton's own schema.

The schema is NVIDIA's: ``model_config.proto`` as the client package brings it, an extra that is imported
when it is needed. What Triton's backends demand beyond it is kept here:

- Where Triton batches, every tensor has the batch first and ``dims`` leave it out; a tensor of shape (N,)
  is (N, 1) to clients, by ``reshape``.
- Only the ONNX Runtime backend takes optional inputs, and only where it does not batch. There ``dims``
  are whole, -1 for the batch: a client may send several images, and Triton joins no requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import onnx

from zmask_export.errors import BackendUnavailableError, BundleError

Backend = Literal["onnxruntime", "tensorrt"]

PLATFORMS: Mapping[Backend, str] = {
    "onnxruntime": "onnxruntime_onnx",
    "tensorrt": "tensorrt_plan",
}
MODEL_FILES: Mapping[Backend, str] = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
CONFIG_FILE = "config.pbtxt"
VERSION_FOLDER = "1"
MARK = "zmask-export"
"""Parameter that tells our configurations from others."""

_DTYPES: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.BOOL: "TYPE_BOOL",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
}


@dataclass(frozen=True)
class ServedTensor:
    """An input or output of the file that Triton loads.

    Attributes:
        name: of the tensor.
        dtype: Triton's name of its type, such as TYPE_FP32.
        shape: with the batch, -1 where it is dynamic.
        optional: whether a request may leave it out.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class ServedModel:
    """What a configuration says.

    Attributes:
        name: of the model.
        backend: of Triton.
        max_batch: most images that Triton joins; 0 for no batching.
        inputs, outputs: of the file.
        notes: parameters that only people read.
    """

    name: str
    backend: Backend
    max_batch: int
    inputs: Sequence[ServedTensor]
    outputs: Sequence[ServedTensor]
    notes: Mapping[str, str]


def signature(
    model: bytes, batch: int | None = None
) -> tuple[list[ServedTensor], list[ServedTensor]]:
    """Inputs and outputs of an ONNX file; an input with a default is optional.

    Args:
        model: the file.
        batch: in the place of a dynamic batch; None keeps it dynamic.

    Raises:
        BundleError: a tensor of a type or shape that no bundle has.
    """
    graph = onnx.load_model_from_string(model).graph
    defaults = {tensor.name for tensor in graph.initializer}
    free = -1 if batch is None else batch

    def read(values: Iterable[onnx.ValueInfoProto]) -> list[ServedTensor]:
        tensors = []
        for value in values:
            kind = value.type.tensor_type
            dims = [d.dim_value if d.HasField("dim_value") else free for d in kind.shape.dim]
            if kind.elem_type not in _DTYPES or not dims:
                raise BundleError(
                    f"The bundle's tensor {value.name} has a type or shape that Triton does not take.",
                    fix="Build the bundle again.",
                )
            dtype = _DTYPES[kind.elem_type]
            tensors.append(ServedTensor(value.name, dtype, tuple(dims), value.name in defaults))
        return tensors

    return read(graph.input), read(graph.output)


def configuration(model: ServedModel) -> str:
    """The text of ``config.pbtxt``.

    Raises:
        BackendUnavailableError: Triton's schema is not installed.
    """
    from google.protobuf import text_format

    schema = _schema()
    config = schema.ModelConfig(
        name=model.name,
        platform=PLATFORMS[model.backend],
        backend=model.backend,
        max_batch_size=model.max_batch,
        default_model_filename=MODEL_FILES[model.backend],
    )
    for tensor in model.inputs:
        _describe(config.input.add(optional=tensor.optional), tensor, model.max_batch, schema)
    for tensor in model.outputs:
        _describe(config.output.add(), tensor, model.max_batch, schema)
    group = config.instance_group.add(count=1)
    if model.backend == "tensorrt":
        group.kind = schema.ModelInstanceGroup.KIND_GPU
    else:
        # On a GPU, where there is one; the bundle was compared with its reference in float32.
        group.kind = schema.ModelInstanceGroup.KIND_AUTO
        accelerators = config.optimization.execution_accelerators
        cuda = accelerators.gpu_execution_accelerator.add(name="cuda")
        cuda.parameters["use_tf32"] = "0"
    if model.max_batch:
        config.dynamic_batching.SetInParent()
    for name, text in model.notes.items():
        config.parameters[name].string_value = text
    return str(text_format.MessageToString(config))


def is_ours(text: str) -> bool:
    """Whether a ``config.pbtxt`` is one of :func:`configuration`.

    Raises:
        BackendUnavailableError: Triton's schema is not installed.
    """
    from google.protobuf import text_format

    try:
        return MARK in text_format.Parse(text, _schema().ModelConfig()).parameters
    except text_format.ParseError:
        return False


def _describe(entry: Any, tensor: ServedTensor, max_batch: int, schema: Any) -> None:
    entry.name = tensor.name
    entry.data_type = schema.DataType.Value(tensor.dtype)
    dims = tensor.shape[1:] if max_batch else tensor.shape
    # Triton knows no empty dims: an empty reshape says that the batch is all there is.
    entry.dims.extend(dims or (1,))
    if not dims:
        entry.reshape.SetInParent()


def _schema() -> Any:
    try:
        from tritonclient.grpc import model_config_pb2
    except Exception as exc:  # also protobuf's own errors, where versions do not fit
        raise BackendUnavailableError(
            f"Triton's schema cannot be imported ({' '.join(str(exc).split())[:200]}).",
            fix="pip install 'zmask-export[triton]'.",
        ) from exc
    return model_config_pb2
