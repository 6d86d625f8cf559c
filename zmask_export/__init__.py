"""zmask-export: compile convolutional networks into engines that find and cover adversarial patches.

The method is Z-Mask (Rossolini, Nesti, Brau, Biondi, Buttazzo, AAAI 2023). The command line is
``zmask-export``; from Python, :func:`load` opens a built bundle::

    engine = zmask_export.load("engines/icnet")
    result = engine(image)          # uint8 (H, W, 3)
    result.flag, result.mask, result.prediction
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zmask_export.runtime.protected import Protected, Result, load

__version__ = "0.1.0"

__all__ = ["Protected", "Result", "__version__", "load"]

# ONNX Runtime's builds write an identifier and report to their maker, unless told not to before they load.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line's --help needs none of it.
    if name in ("Protected", "Result", "load"):
        from zmask_export.errors import shortages_named

        with shortages_named():
            from zmask_export.runtime import protected

        return getattr(protected, name)
    raise AttributeError(f"module 'zmask_export' has no attribute {name!r}")
