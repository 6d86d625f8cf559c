"""Packages that only some verbs need: what to say where they are not installed."""

from __future__ import annotations

from zmask_export.errors import BackendUnavailableError

BUILD_MODULES = frozenset(
    {
        "cyclonedx",
        "faster_coco_eval",
        "jinja2",
        "matplotlib",
        "onnx",
        "onnx_ir",
        "onnxscript",
        "packageurl",
        "safetensors",
        "scipy",
        "torch",
        "torchvision",
        "yaml",
    }
)
"""What the extra ``build`` brings, as Python calls it; bundles run without."""


def not_installed(exc: ModuleNotFoundError) -> BackendUnavailableError | None:
    """The error of ours for a module of the extra ``build`` that is missing; None for any other."""
    name = (exc.name or "").partition(".")[0]
    if name not in BUILD_MODULES:
        return None
    return BackendUnavailableError(
        f"The package {name} is not installed, which this command needs.",
        fix="Install what builds bundles: pip install 'zmask-export[build]'.",
    )
