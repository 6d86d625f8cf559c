"""The bill of materials of a bundle, held against CycloneDX's schema and what is installed."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.exception import MissingOptionalDependencyException
from cyclonedx.validation.json import JsonStrictValidator

from zmask_export.artifacts.calibration import load
from zmask_export.pipeline.sbom import SCHEMA, bill_of_materials, installed


@pytest.fixture(scope="module")
def text(bundle: Path) -> str:
    return (bundle / "sbom.cdx.json").read_text("utf-8")


@pytest.fixture(scope="module")
def bill(text: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(text)
    return record


def test_it_keeps_to_the_schema(text: str, bill: dict[str, Any]) -> None:
    validator = JsonStrictValidator(SCHEMA)
    try:
        assert validator.validate_str(text) is None
        assert validator.validate_str(json.dumps(bill | {"components": 3})) is not None
    except MissingOptionalDependencyException:
        pytest.skip("the schema validator is not installed (cyclonedx-python-lib[json-validation])")


def test_it_names_the_bundle_and_its_weights(bundle: Path, bill: dict[str, Any]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    made = bill["metadata"]["component"]
    assert (made["name"], made["type"]) == (manifest["name"], "machine-learning-model")
    (weights,) = made["properties"]
    assert weights["value"] == manifest["weights_sha256"]
    (tool,) = bill["metadata"]["tools"]["components"]
    assert (tool["name"], tool["version"]) == ("zmask-export", manifest["tool_version"])


def test_packages_are_the_installed_ones_and_who_needs_whom_is_closed(
    bundle: Path, bill: dict[str, Any]
) -> None:
    found = {c["name"]: c["version"] for c in bill["components"]}
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert found.pop("python") == manifest["versions"]["python"]
    assert {"torch", "onnx", "numpy", "safetensors"} <= found.keys()
    assert found == {name: metadata.version(name) for name in found}
    for name in found.keys() & manifest["versions"].keys():
        assert found[name] == manifest["versions"][name]
    needs = {d["ref"]: set(d.get("dependsOn", ())) for d in bill["dependencies"]}
    components = {c["bom-ref"] for c in bill["components"]}
    assert needs["bundle"] == components == needs.keys() - {"bundle"}
    assert set().union(*needs.values()) <= components


def test_it_holds_neither_time_nor_chance(bundle: Path, text: str, bill: dict[str, Any]) -> None:
    assert "timestamp" not in bill["metadata"]
    header = load(bundle / "calibration.safetensors").header
    flavours = [e["flavour"] for e in json.loads((bundle / "manifest.json").read_text())["engines"]]
    assert bill_of_materials(bundle.name, header, flavours) == text
    other = json.loads(bill_of_materials("other", header, flavours))
    assert other["serialNumber"] != bill["serialNumber"]


def test_an_extra_brings_what_it_asks_for_here() -> None:
    plain, built = installed("zmask-export", ()), installed("zmask-export", ("build",))
    assert "torch" not in plain
    assert "numpy" in plain
    assert plain.keys() < built.keys()
    for name, needs in built.items():
        assert name not in needs
        assert built.keys() >= set(needs)
