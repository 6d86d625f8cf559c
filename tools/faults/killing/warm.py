"""What the server of forks has done before the first fork: every import, and one export, which caches more.

It starts no thread, for a fork would not have it.
"""

from __future__ import annotations

import importlib

from killing.inputs import SIZE
from killing.network import make
from zmask_export.export.bare import export_bare
from zmask_export.models.bare import BareNetwork
from zmask_export.spec import PREPROCESS

for name in (
    "matplotlib.figure",
    "onnxruntime",
    "zmask_export.cli.console",
    "zmask_export.cli.main",
    *(f"zmask_export.cli.{verb}" for verb in ("build", "calibrate", "craft", "evaluate", "fit")),
    *(f"zmask_export.pipeline.{verb}" for verb in ("build", "craft", "evaluate", "fit", "study")),
):
    importlib.import_module(name)
export_bare(BareNetwork(make(), PREPROCESS["unit"], {"stem": "stem"}), SIZE)
