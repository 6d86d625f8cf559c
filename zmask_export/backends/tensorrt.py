"""TensorRT and TensorRT-RTX: one code path, two flavours.

``tensorrt-rtx`` compiles ahead of time on any machine, for chosen compute capabilities. ``tensorrt``
needs a GPU to build on. Networks are strongly typed: precisions live in the graph.

The compiler orders what it writes by memory addresses, so an engine depends on what the process did
before. It therefore runs in a process of its own (:mod:`zmask_export.backends.compiler`): a graph with a
fixed batch compiles to the same bytes every time, and a crash of the compiler is an error like others.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from zmask_export.artifacts.scratch import scratch
from zmask_export.backends import compiler
from zmask_export.backends.compiler import capabilities_of, short
from zmask_export.backends.gpu import gpu_count
from zmask_export.errors import BackendUnavailableError, CompileError, UsageError
from zmask_export.spec import Precision

Flavour = Literal["tensorrt", "tensorrt-rtx"]

_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL: dict[Flavour, str] = {
    "tensorrt": "pip install 'zmask-export[tensorrt]'",
    "tensorrt-rtx": "pip install 'zmask-export[rtx]' on Linux x86-64",
}
"""How each flavour gets onto a machine."""

MOST_GROWTH, SLACK = 1.5, 4 << 20
"""An engine's weights take at most so many times the bytes of its graph, and so many more: weights that a
compiler widens behind its user's back take twice as many."""


@dataclass(frozen=True)
class BatchRange:
    """Batches an engine takes: smallest, the one it is tuned for, largest."""

    smallest: int = 1
    tuned: int = 1
    largest: int = 1


@dataclass(frozen=True)
class CompiledEngine:
    """A compiled engine and what the compiler said of it.

    Attributes:
        flavour: which compiler.
        version: its version.
        data: the serialized engine.
        capabilities: compute capabilities it runs on, such as ("8.6", "8.9"); empty for the GPU it
            was built on.
        activation_bytes: activation memory; None where the compiler does not say.
        weight_bytes: memory of the weights; None where it does not say.
        tf32: whether TF32 arithmetic is allowed.
        convolutions: precision to how many convolutions of the parsed network compute in it; those of
            int8 read what was quantised.
        compiled: the same of the finished engine, whose layers tensorrt-rtx lists; see
            :func:`zmask_export.backends.compiler.compiled_convolutions`. Empty where a compiler lists none.
    """

    flavour: Flavour
    version: str
    data: bytes
    capabilities: tuple[str, ...]
    activation_bytes: int | None
    weight_bytes: int | None
    tf32: bool
    convolutions: dict[str, int]
    compiled: dict[str, int]


def available(flavour: Flavour) -> str | None:
    """None where engines of this flavour can be built here, else the reason in one sentence."""
    try:
        importlib.import_module(_MODULES[flavour])
    except (ImportError, OSError, RuntimeError) as exc:
        return f"The package {_MODULES[flavour]} cannot be imported ({short(exc)})."
    if flavour == "tensorrt" and gpu_count() == 0:
        return "TensorRT builds on an NVIDIA GPU, and this machine shows none."
    return None


def require(flavour: Flavour) -> ModuleType:
    """The flavour's Python module.

    Raises:
        BackendUnavailableError: it cannot build here, with the reason.
    """
    reason = available(flavour)
    if reason is not None:
        installed = "shows none" in reason
        fix = (
            "Build on a machine with a GPU, or choose --target tensorrt-rtx, which needs none."
            if installed
            else f"Install it ({INSTALL[flavour]}), or choose another --target."
        )
        raise BackendUnavailableError(reason, fix=fix)
    return importlib.import_module(_MODULES[flavour])


def supported_capabilities() -> list[str]:
    """Compute capabilities that tensorrt-rtx compiles for, such as "8.9".

    Raises:
        BackendUnavailableError: tensorrt-rtx is not here.
    """
    return sorted(capabilities_of(require("tensorrt-rtx")), key=lambda text: float(text))


def compile_engine(
    onnx_model: bytes,
    flavour: Flavour,
    *,
    batch: BatchRange | None,
    capabilities: tuple[str, ...] = (),
    precision: Precision = "fp32",
) -> CompiledEngine:
    """Compile a fused graph.

    A graph with a fixed batch compiles to the same bytes every time. With a range of batches the
    compiler's threads leave their mark: engines of one graph differ in the order of a few entries.

    Args:
        onnx_model: the graph.
        flavour: which compiler.
        batch: range of a dynamic batch; None for a graph with a fixed one.
        capabilities: for tensorrt-rtx, what to compile for; empty takes the compiler's default.
        precision: that the graph was made for. TF32 arithmetic is allowed for tf32 alone.

    Raises:
        BackendUnavailableError: the flavour cannot build here.
        UsageError: an unknown compute capability.
        CompileError: the parser or the compiler refuses the graph, and names the node; or what it made
            does not have the precision.
    """
    trt = require(flavour)
    if capabilities and flavour != "tensorrt-rtx":
        raise UsageError(
            "Compute capabilities can be chosen for tensorrt-rtx only.",
            fix="Leave out --compute-capability, or choose --target tensorrt-rtx.",
        )
    known = capabilities_of(trt) if capabilities else {}
    for text in capabilities:
        if text not in known:
            raise UsageError(
                f"tensorrt-rtx does not compile for compute capability {text}.",
                fix=f"Choose among {', '.join(sorted(known, key=float))}.",
            )
    request = {
        "module": trt.__name__,
        "flavour": flavour,
        "batch": list(asdict(batch).values()) if batch else None,
        "capabilities": capabilities,
        "tf32": precision == "tf32",
    }
    given = onnx_model
    if precision == "int8":
        # Needs onnx, which a runtime may lack.
        from zmask_export.backends.branches import weights_beside

        given = weights_beside(onnx_model)
    data, said = _in_own_process(given, request)
    engine = CompiledEngine(
        flavour=flavour,
        version=str(trt.__version__),
        data=data,
        capabilities=capabilities,
        activation_bytes=said["activation_bytes"],
        weight_bytes=said["weight_bytes"],
        tf32=said["tf32"],
        convolutions=said["convolutions"],
        compiled=said["compiled"],
    )
    require_precision(
        engine,
        precision,
        kept=said["kept"],
        listed=said["listed"],
        graph_bytes=len(onnx_model),
    )
    return engine


def require_precision(
    engine: CompiledEngine, precision: Precision, *, kept: int, listed: bool, graph_bytes: int
) -> None:
    """Refuse an engine that does not compute, or store its weights, as it was asked to.

    Args:
        engine: what the compiler made.
        precision: that was asked for.
        kept: how many convolutions may compute in float32 beside it.
        listed: whether the compiler lists the finished layers. Among them there may be no convolution: a
            small one becomes some other kernel.
        graph_bytes: size of the graph.

    Raises:
        CompileError: with what is wrong.
    """
    wanted = "fp32" if precision == "tf32" else precision
    fault = None
    for counts, where in ((engine.convolutions, "graph"), (engine.compiled, "engine")):
        total = sum(counts.values())
        wrong = total - counts.get(wanted, 0)
        if wanted != "fp32":
            wrong -= min(kept, counts.get("fp32", 0))
        if wrong > 0:
            fault = f"computes {wrong} of the {where}'s {total} convolutions in another precision"
            break
    if fault is not None:
        pass
    elif engine.flavour == "tensorrt-rtx" and not listed:
        fault = "the compiler does not say what its layers compute in"
    elif engine.tf32 != (precision == "tf32"):
        fault = "has TF32 on" if engine.tf32 else "cannot take TF32"
    elif (engine.weight_bytes or 0) > MOST_GROWTH * graph_bytes + SLACK:
        fault = f"has {engine.weight_bytes} bytes of weights, and the graph {graph_bytes} in all"
    if fault is not None:
        raise CompileError(
            f"The {engine.flavour} engine was asked for in {precision} and {fault}.",
            fix="Choose another --precision, or --target onnx, and report the command that you ran.",
        )


_KEPT = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", *(["PATH"] if sys.platform == "win32" else []))
_IMPORTED = ("zmask_export", "pydantic", "pydantic_core", "typing_extensions")
_PATHS = "paths.json"
_START = (
    f"import json, sys; sys.path.remove(''); added = json.load(open({_PATHS!r})); "
    "sys.path += [path for path in added if path not in sys.path]; "
    "from zmask_export.backends import compiler; compiler.main('.')"
)


def _roots(module: str) -> list[str]:
    """Folders that the compiler's process imports from; those of this process may be others at every start,
    and every one would shift the compiler's memory."""
    roots = []
    for spec in map(importlib.util.find_spec, (*_IMPORTED, module)):
        if spec is not None and spec.origin is not None:
            place = Path(spec.origin).absolute().parent
            roots.append(str(place.parent if spec.submodule_search_locations else place))
    return list(dict.fromkeys(roots))


_NO_RANDOM_ADDRESSES, _SIGNAL_WITHOUT_PARENT = 0x0040000, 1


def _steady_and_bound() -> None:
    """Same addresses, one processor: the order of entries hangs on them. And an end with this process."""
    system = ctypes.CDLL(None)
    system.personality(_NO_RANDOM_ADDRESSES)
    system.prctl(_SIGNAL_WITHOUT_PARENT, signal.SIGKILL)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _in_own_process(onnx_model: bytes, request: compiler.Record) -> tuple[bytes, compiler.Record]:
    with scratch("compile") as folder:
        (folder / compiler.MODEL).write_bytes(onnx_model)
        (folder / compiler.REQUEST).write_text(json.dumps(request), "utf-8")
        (folder / _PATHS).write_text(json.dumps(_roots(request["module"])), "utf-8")
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _START],
            cwd=folder,
            preexec_fn=_steady_and_bound if sys.platform == "linux" else None,
            # Names of folders and variables would shift the compiler's memory, and so its bytes.
            env={key: os.environ[key] for key in _KEPT if key in os.environ}
            | {"PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        answer = folder / compiler.ANSWER
        if done.returncode or not answer.exists():
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise CompileError(
                f"The {request['flavour']} compiler ended with code {done.returncode}"
                f" ({short(said[0]) if said else 'it gives no reason'}).",
                fix="Give it more memory, or choose --target onnx.",
            )
        said = json.loads(answer.read_text("utf-8"))
        if "problem" in said:
            kind = UsageError if said["usage"] else CompileError
            raise kind(said["problem"], fix=said["fix"])
        return (folder / compiler.ENGINE).read_bytes(), said
