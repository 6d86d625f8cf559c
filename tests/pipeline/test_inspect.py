from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx

from tests.conftest import assert_refused, link_tree, zmask
from zmask_export.artifacts.bundle import read_manifest


def test_a_bundle_is_described_as_its_files_say(bundle: Path) -> None:
    record = zmask("inspect", bundle, "--layers", "--json").record
    manifest = read_manifest(bundle)
    assert record["manifest"] == json.loads(manifest.model_dump_json())
    assert (
        record["bytes"]
        == sum(p.stat().st_size for p in bundle.iterdir())
        - (bundle / "manifest.json").stat().st_size
    )
    layers = record["graph"]["layers"]
    top = [n.name for n in onnx.load(bundle / "protected.onnx").graph.node]
    assert [layer["name"] for layer in layers if layer["depth"] == 0] == top
    assert {layer["depth"] for layer in layers} == {0, 1}
    parts = {part["part"]: part for part in record["graph"]["parts"]}
    assert set(parts) == {"network", "zscore", "cascade", "fusion", "gate", "second_pass"}
    assert sum(part["nodes"] for part in parts.values()) == len(layers)
    for part in parts.values():
        assert sum(part["operators"].values()) == part["nodes"]
    # The passes share weights: the second one has none of its own.
    assert parts["network"]["weight_bytes"] > 20e6
    assert parts["second_pass"]["weight_bytes"] < 1e4
    assert parts["network"]["operators"]["Conv"] == parts["second_pass"]["operators"]["Conv"]
    taps = {tap["tap"]: tap for tap in record["defense"]["taps"]}
    assert taps["res_block5"] == {
        "tap": "res_block5",
        "channels": 1024,
        "sets": ["shallow", "deep"],
    }
    assert record["defense"]["grid"] == [30, 40]
    assert record["notes"] == []


def test_layers_are_listed_when_asked_for(bundle: Path) -> None:
    assert "layers" not in zmask("inspect", bundle, "--json").record["graph"]
    short, long = zmask("inspect", bundle), zmask("inspect", bundle, "--layers")
    assert (short.code, long.code) == (0, 0)
    for text in ("every hash holds", "heatmap.deep.res_block5", "second_pass", "sha256"):
        assert text in short.out
    assert "gate/If" in long.out
    assert "gate/If" not in short.out


def test_a_changed_byte_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = link_tree(bundle, tmp_path / "copy")
    data = bytearray((copy / "protected.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "protected.onnx").unlink()
    (copy / "protected.onnx").write_bytes(data)
    assert_refused(zmask("inspect", copy), 4, "changed file protected.onnx")


def test_without_the_build_packages_the_rest_is_shown(bundle: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('onnx', 'safetensors', 'torch', 'matplotlib', 'jinja2'): sys.modules[name] = None\n"
        "from zmask_export.cli.main import run\n"
        "sys.exit(run(['inspect', sys.argv[1], '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True
    )
    record = json.loads(done.stdout)
    assert (record["graph"], record["defense"]) == (None, None)
    assert record["manifest"]["model"] == "icnet"
    assert all("zmask-export[build]" in note for note in record["notes"])
    assert len(record["notes"]) == 2
