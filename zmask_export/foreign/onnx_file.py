"""Reading a user's ONNX file: nothing outside its folder, one image in, every tensor by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from google.protobuf.message import Error as ProtobufError
from onnx import ModelProto, TensorProto, external_data_helper
from onnx.shape_inference import InferenceError

from zmask_export.errors import NetworkError
from zmask_export.foreign.suggest import Shape
from zmask_export.spec import Size

MOST_BYTES = (2 << 30) - (1 << 20)
"""An ONNX file with its weights inside, as bundles hold it, can have no more."""


@dataclass(frozen=True)
class OnnxFile:
    """A user's graph.

    Attributes:
        path: the file.
        proto: the graph, weights inside.
        sha256: over the file and all files of weights.
        image: name of its input.
        batch: fixed batch, or None.
        height, width: fixed input size, or None each.
    """

    path: Path
    proto: ModelProto
    sha256: str
    image: str
    batch: int | None
    height: int | None
    width: int | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return tuple(output.name for output in self.proto.graph.output)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of everything that nodes compute from the image, in order."""
        found = {self.image: None}
        for node in self.proto.graph.node:
            if any(name in found for name in node.input):
                found |= dict.fromkeys(filter(None, node.output))
        return tuple(found)[1:]

    @property
    def size(self) -> Size | None:
        """The input size, where the file fixes both sides."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    def to_bytes(self) -> bytes:
        """The graph unchanged, weights inside."""
        return self.proto.SerializeToString()

    def with_outputs(self, tensors: Iterator[str] | tuple[str, ...]) -> bytes:
        """The same graph that also outputs ``tensors``."""
        copy = ModelProto()
        copy.CopyFrom(self.proto)
        have = set(self.outputs)
        copy.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in have)
        return copy.SerializeToString()

    def maps(self, size: Size) -> dict[str, Shape]:
        """Float tensors that are maps, with (C, h, w), as far as ONNX infers shapes; outputs left out."""
        copy = ModelProto()
        copy.CopyFrom(self.proto)
        fix_input(copy, self.image, 1, size)
        try:
            inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True)
        except (InferenceError, RuntimeError, ValueError, ProtobufError):
            return {}  # only costs suggestions; the graph is judged by running it
        found = {}
        for value in (*inferred.graph.value_info, *inferred.graph.output):
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            floats = value.type.tensor_type.elem_type == TensorProto.FLOAT
            if floats and len(dims) == 4 and all(dims):
                found[value.name] = tuple(dims[1:])
        own = set(self.outputs)
        return {name: found[name] for name in self.tensors if name in found and name not in own}


def read_onnx(path: Path) -> OnnxFile:
    """Read and check a file.

    Raises:
        NetworkError: it cannot be read, is no ONNX, reads weights from outside its folder, is too
            large, or takes something else than one float32 image (N, 3, H, W).
    """
    label = f"The ONNX file {path}"
    try:
        data = path.read_bytes()
        proto = onnx.load_model_from_string(data)
    except OSError as exc:
        raise NetworkError(
            f"{label} cannot be read ({exc.strerror}).", fix="Give the path of an ONNX file."
        ) from exc
    except DecodeError as exc:
        raise NetworkError(
            f"{label} is cut short or no ONNX.", fix="Export or copy it again."
        ) from exc
    if not proto.graph.node or not proto.graph.output:
        raise NetworkError(f"{label} holds no graph.", fix="Export or copy it again.")
    if not _all_text(proto):
        raise NetworkError(f"{label} has names that are no text.", fix="Export or copy it again.")
    digest = hashlib.sha256(data)
    total = len(data)
    for file in _weight_files(path, proto):
        total += file.stat().st_size
        if total > MOST_BYTES:
            break
        digest.update(file.read_bytes())
    if total > MOST_BYTES:
        raise NetworkError(
            f"{label} has {total >> 20} MiB with its weights; a bundle's graph holds 2047 MiB.",
            fix="Use a smaller network.",
        )
    try:
        external_data_helper.load_external_data_for_model(proto, str(path.parent))
    except Exception as exc:  # the helper raises whatever a damaged entry leads to
        raise NetworkError(
            f"{label} has weights that cannot be read ({' '.join(str(exc).split())[:200]}).",
            fix="Copy the file together with its files of weights.",
        ) from exc
    return _described(path, proto, digest.hexdigest(), label)


def fix_input(proto: ModelProto, name: str, batch: int | str, size: Size) -> None:
    """Declare the input of a graph as (batch, 3, H, W), and forget what was said of other shapes."""
    for value in proto.graph.input:
        if value.name == name:
            shape = value.type.tensor_type.shape
            shape.ClearField("dim")
            for side in (batch, 3, *size):
                if isinstance(side, str):
                    shape.dim.add().dim_param = side
                else:
                    shape.dim.add().dim_value = side
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        if value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.ClearField("shape")


def _all_text(message: Message) -> bool:
    """Whether all strings of a message are UTF-8; of one that is not, protobuf gives the bytes."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, (str, bytes)) else value
            if any(isinstance(text, bytes) for text in texts):
                return False
        elif field.type == field.TYPE_MESSAGE:
            parts = [value] if isinstance(value, Message) else value
            if not all(map(_all_text, parts)):
                return False
    return True


def _weight_files(path: Path, proto: ModelProto) -> list[Path]:
    """Files that tensors lie in, each once, all of them beside or below the graph's file."""
    folder = path.parent.resolve()
    found: dict[Path, None] = {}
    for tensor in _tensors(proto.graph):
        if not external_data_helper.uses_external_data(tensor):
            continue
        # Not through the helper's class, which takes every key for an attribute of its own.
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        file = folder / location
        if not location or not _is_inside(file, folder):
            raise NetworkError(
                f"The ONNX file {path} keeps weights in {location!r}, which is no file in its folder.",
                fix="Put the weights beside the file, or save it again with them inside.",
            )
        found[file] = None
    return list(found)


def _is_inside(file: Path, folder: Path) -> bool:
    """Whether a path is a file in a folder or below, and no link."""
    try:
        # Resolved, so that neither ".." nor a link leads out of the folder; nor does an absolute path.
        inside = file.resolve().is_relative_to(folder)
        return inside and not file.is_symlink() and file.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g,) if attribute.HasField("g") else tuple(attribute.graphs):
                yield from _tensors(inner)


def _described(path: Path, proto: ModelProto, sha256: str, label: str) -> OnnxFile:
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise NetworkError(
            f"{label} has {len(inputs)} inputs ({names}), and an engine has one image.",
            fix="Export the network with the image as its only input, the others as constants.",
        )
    tensor = inputs[0].type.tensor_type
    dims = [dim.dim_value or None for dim in tensor.shape.dim]
    # Some exporters write -1 for a side that is free.
    dims = [None if dim is not None and dim < 1 else dim for dim in dims]
    given = "x".join("?" if dim is None else str(dim) for dim in dims)
    known = tensor.elem_type in TensorProto.DataType.values()
    kind = TensorProto.DataType.Name(tensor.elem_type).lower() if known else "an unknown type"
    if tensor.elem_type != TensorProto.FLOAT or len(dims) != 4 or dims[1] not in (None, 3):
        layout = len(dims) == 4 and dims[3] == 3
        raise NetworkError(
            f"{label} takes {inputs[0].name} as {kind} {given}, not as float32 Nx3xHxW.",
            fix="Put a Transpose in front: the engine's image is N, channels, height, width."
            if layout and tensor.elem_type == TensorProto.FLOAT
            else "Export it with a float32 RGB image (N, 3, H, W) as its input.",
        )
    return OnnxFile(path, proto, sha256, inputs[0].name, dims[0], dims[2], dims[3])
