"""Triton model repositories: by Triton's own schema, and by what its backends check as they load.

No Triton runs here. What its ONNX Runtime backend demands of a configuration and a file is restated by
:func:`refusals` from the backend's source; the file itself runs in ONNX Runtime.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import assert_refused, contents, link_tree, zmask
from tests.drawn import SIZE
from zmask_export.artifacts.bundle import read_manifest
from zmask_export.artifacts.manifest import FILE_NAME, EngineInfo, describe_files
from zmask_export.fuse.batch import fix_batch
from zmask_export.runtime.choice import ONNX_FILE
from zmask_export.serve.triton import ServedModel, ServedTensor, configuration

text_format = pytest.importorskip("google.protobuf.text_format")
schema = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2",
    reason="Triton's schema is not installed: pip install 'zmask-export[triton]'",
)
PLAN = "protected.tensorrt.engine"
ORT_TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(int64)": "TYPE_INT64",
}


def parsed(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), schema.ModelConfig())


def full_shape(entry: Any, max_batch: int) -> list[int]:
    """The shape that Triton expects of a model's tensor."""
    dims = entry.reshape.shape if entry.HasField("reshape") else entry.dims
    return [-1, *dims] if max_batch else list(dims)


def refusals(config: Any, session: ort.InferenceSession) -> list[str]:
    """Why Triton's ONNX Runtime backend would not load it."""
    found = []
    required = [entry for entry in config.input if not entry.optional]
    if len(required) != len(session.get_inputs()):
        found.append(f"{len(required)} inputs instead of {len(session.get_inputs())}")
    known = {i.name: i for i in (*session.get_inputs(), *session.get_overridable_initializers())}
    results = {o.name: o for o in session.get_outputs()}
    for entry, there in (
        *((i, known.get(i.name)) for i in config.input),
        *((o, results.get(o.name)) for o in config.output),
    ):
        if there is None:
            found.append(f"{entry.name} is not there")
            continue
        if getattr(entry, "optional", False) and config.max_batch_size:
            found.append(f"{entry.name} is optional, and the model batches")
        if schema.DataType.Name(entry.data_type) != ORT_TYPES[there.type]:
            found.append(f"{entry.name} is {there.type}")
        shape = [d if isinstance(d, int) else -1 for d in there.shape]
        if full_shape(entry, config.max_batch_size) != shape:
            found.append(f"{entry.name} has shape {shape}")
        if not entry.dims:
            found.append(f"{entry.name} has no dims")
    return found


def session_of(folder: Path) -> ort.InferenceSession:
    return ort.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def altered(
    bundle: Path, out: Path, *, batch: int | None = None, plan: bytes | None = None
) -> Path:
    """A copy of a bundle with another batch, or with a file in the place of a TensorRT plan."""
    folder = link_tree(bundle, out)
    manifest = read_manifest(folder)
    changes: dict[str, Any] = {}
    if batch is not None:
        model = fix_batch((folder / ONNX_FILE).read_bytes(), batch)
        (folder / ONNX_FILE).unlink()
        (folder / ONNX_FILE).write_bytes(model)
        changes["batch"] = batch
    if plan is not None:
        (folder / PLAN).write_bytes(plan)
        engine = EngineInfo(
            file=PLAN, flavour="tensorrt", version="10.13.0", capabilities=(), activation_bytes=None,
            weight_bytes=None, tf32=True, batch=(1, 1, 4),
        )  # fmt: skip
        changes["engines"] = (*manifest.engines, engine)
    (folder / FILE_NAME).unlink()
    changes["files"] = describe_files(folder)
    data = manifest.model_copy(update=changes).sealed().to_bytes()
    (folder / FILE_NAME).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["bundle", "detect_bundle"])
@pytest.mark.parametrize("max_batch", [0, 8])
def test_triton_would_load_what_is_written(
    kind: str, max_batch: int, request: pytest.FixtureRequest, out: Path
) -> None:
    bundle = request.getfixturevalue(kind)
    batching = ("--max-batch", max_batch) if max_batch else ()
    record = zmask("triton", bundle, out, "--name", "street", *batching, "--json").record
    folder = out / "street"
    assert contents(out) == [
        "street",
        *(f"street/{p}" for p in ("1", "1/model.onnx", "config.pbtxt")),
    ]
    config = parsed(folder)
    assert (config.name, config.backend, config.max_batch_size) == (
        "street",
        "onnxruntime",
        max_batch,
    )
    assert config.HasField("dynamic_batching") == bool(max_batch)
    assert refusals(config, session_of(folder)) == []
    inputs = {entry.name: entry for entry in config.input}
    assert inputs["threshold"].optional == (max_batch == 0)
    assert not inputs["image"].optional
    assert record["threshold_input"] == ("per image" if max_batch else "optional")
    assert record["threshold"] == read_manifest(bundle).threshold
    assert {o.name for o in config.output} == {t.name for t in read_manifest(bundle).outputs}


@pytest.mark.parametrize("max_batch", [0, 8])
def test_a_request_by_the_configuration_is_answered_by_it(
    max_batch: int, bundle: Path, out: Path
) -> None:
    batching = ("--max-batch", max_batch) if max_batch else ()
    assert zmask("triton", bundle, out, *batching).code == 0
    folder = out / read_manifest(bundle).name
    config, n = parsed(folder), 3
    feeds = {}
    for entry in config.input:
        if not entry.optional:
            shape = [n if d == -1 else d for d in full_shape(entry, max_batch)]
            feeds[entry.name] = np.full(shape, -1 if entry.name == "threshold" else 0.5, np.float32)
    names = [entry.name for entry in config.output]
    for entry, value in zip(config.output, session_of(folder).run(names, feeds), strict=True):
        expected = [n if d == -1 else d for d in full_shape(entry, max_batch)]
        assert list(value.shape) == expected, entry.name
        # What a client sees has as many values, and never no dims.
        seen = [n, *entry.dims] if max_batch else [n if d == -1 else d for d in entry.dims]
        assert value.size == np.prod(seen)


def test_a_fixed_batch_is_served_as_it_is(bundle: Path, out: Path, tmp_path: Path) -> None:
    fixed = altered(bundle, tmp_path / "fixed", batch=2)
    refused = zmask("triton", fixed, out, "--max-batch", 8)
    assert_refused(refused, 2, "batches of 2", "--max-batch")
    assert contents(out.parent) == []
    assert zmask("triton", fixed, out, "--name", "two").code == 0
    config = parsed(out / "two")
    assert refusals(config, session_of(out / "two")) == []
    assert list(config.input[0].dims) == [2, 3, *SIZE]
    assert not config.HasField("dynamic_batching")


def test_a_plan_is_served_with_a_threshold_that_is_required(
    bundle: Path, out: Path, tmp_path: Path
) -> None:
    planned = altered(bundle, tmp_path / "planned", plan=b"a plan")
    outcome = zmask("triton", planned, out, "--name", "plan", "--backend", "tensorrt")
    assert "TensorRT 10.13.0" in outcome.out
    assert (out / "plan" / "1" / "model.plan").read_bytes() == b"a plan"
    config = parsed(out / "plan")
    assert (config.platform, config.backend) == ("tensorrt_plan", "tensorrt")
    assert [(i.name, list(i.dims), i.optional) for i in config.input] == [
        ("image", [-1, 3, *SIZE], False),
        ("threshold", [1], False),
    ]
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    batched = zmask("triton", planned, out, "--backend", "tensorrt", "--max-batch", 4)
    assert_refused(batched, 2, "one threshold a batch", "onnxruntime")
    assert_refused(zmask("triton", bundle, out, "--backend", "tensorrt"), 4, "no TensorRT plan")


def test_only_an_own_model_is_replaced(bundle: Path, out: Path) -> None:
    given = ("triton", bundle, out, "--name", "street")
    assert zmask(*given).code == 0
    assert_refused(zmask(*given), 5, "exists already", "--force")
    assert zmask(*given, "--max-batch", 4, "--force").code == 0
    assert parsed(out / "street").max_batch_size == 4
    (out / "street" / "1" / "notes.txt").write_text("mine")
    before = contents(out)
    assert_refused(zmask(*given, "--force"), 5, "is no model of zmask-export", "--name")
    (out / "street" / "1" / "notes.txt").unlink()
    (out / "street" / "config.pbtxt").write_text('name: "street"')
    assert_refused(zmask(*given, "--force"), 5, "is no model of zmask-export")
    (out / "street" / "config.pbtxt").write_text("no configuration")
    assert_refused(zmask(*given, "--force"), 5, "is no model of zmask-export")
    assert contents(out) == [p for p in before if p != "street/1/notes.txt"]


@pytest.mark.parametrize("name", ["../up", "a b", ".hidden", "a/b"])
def test_a_name_that_is_none_is_refused(name: str, bundle: Path, out: Path) -> None:
    assert_refused(zmask("triton", bundle, out, f"--name={name}"), 2, "no name", "--name")
    assert contents(out.parent) == []


def test_a_changed_bundle_is_refused(bundle: Path, out: Path, tmp_path: Path) -> None:
    changed = link_tree(bundle, tmp_path / "changed")
    (changed / ONNX_FILE).unlink()
    (changed / ONNX_FILE).write_bytes(b"other")
    assert_refused(zmask("triton", changed, out), 4, "changed file protected.onnx")
    assert_refused(zmask("triton", out, out), 4, "is no bundle")
    assert contents(out.parent) == []


def test_without_the_schema_the_way_to_get_it_is_named(
    bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    refused = zmask("triton", bundle, out, "--json")
    assert refused.code == 6
    assert refused.record["error"] == "BackendUnavailableError"
    assert "pip install 'zmask-export[triton]'" in refused.record["fix"]
    assert contents(out.parent) == []


SHAPES = st.lists(st.integers(1, 9), max_size=3).map(lambda dims: (-1, *dims))
TYPES = st.sampled_from(["TYPE_FP32", "TYPE_BOOL", "TYPE_INT64"])
TENSORS = st.lists(st.builds(ServedTensor, st.text(min_size=1), TYPES, SHAPES), min_size=1)


@settings(max_examples=50, deadline=None)
@given(TENSORS, TENSORS, st.integers(0, 64), st.text(min_size=1))
def test_every_configuration_says_what_it_was_made_of(
    inputs: list[ServedTensor], outputs: list[ServedTensor], max_batch: int, name: str
) -> None:
    model = ServedModel(name, "onnxruntime", max_batch, inputs, outputs, {"note": name})
    config = text_format.Parse(configuration(model), schema.ModelConfig())
    assert (config.name, config.max_batch_size) == (name, max_batch)
    for entries, tensors in ((config.input, inputs), (config.output, outputs)):
        for entry, tensor in zip(entries, tensors, strict=True):
            assert entry.name == tensor.name
            assert full_shape(entry, max_batch) == list(tensor.shape)
            assert entry.dims
    assert config.parameters["note"].string_value == name
