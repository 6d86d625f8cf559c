"""Importing a user's module and calling its factory; whatever goes wrong there gets one sentence."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from zmask_export.errors import NetworkError, UsageError

_FORM = "Write package.module:factory, such as nets.mine:make."
_OURS = Path(__file__).parent.parent


def load_module(path: str) -> nn.Module:
    """The network that a factory makes, in eval mode, float32, on the CPU.

    The module is imported from the working directory first, then from what is installed. Torch's seed
    is 0 while the factory runs, so that one without weights gives the same network every time. What the
    user's code prints goes to standard error.

    Args:
        path: ``package.module:factory``.

    Raises:
        UsageError: it has another form, there is no such module or factory, or the factory needs
            arguments.
        NetworkError: importing or calling it fails, or it returns no ``nn.Module``.
    """
    name, colon, attribute = path.partition(":")
    if not colon or not all(part.isidentifier() for part in (*name.split("."), attribute)):
        raise UsageError(f"{path!r} names no factory.", fix=_FORM)
    module = _import(name)
    factory = getattr(module, attribute, None)
    if factory is None:
        there = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UsageError(
            f"The module {name} has no {attribute}.",
            fix=f"Name one of its functions: {', '.join(there[:8]) or 'there is none'}.",
        )
    _require_callable(path, factory)
    try:
        with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(sys.stderr):
            torch.manual_seed(0)
            network = factory()
    except (Exception, SystemExit) as exc:
        raise _failed(f"The factory {path}", exc) from exc
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"The factory {path} returns a {type(network).__name__}, no nn.Module.",
            fix="Return the network itself.",
        )
    try:
        return network.cpu().float().eval().requires_grad_(False)
    except Exception as exc:  # a module may override any of these
        raise _failed(f"The network of {path}", exc) from exc


def where(exc: BaseException) -> str:
    """The innermost line of the user's own code that an error passed through; empty if none."""
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        file = Path(frame.filename)
        installed = "site-packages" in file.parts or _OURS in file.parents
        if not installed and file.suffix == ".py" and not _is_standard(file):
            return f"{file.name}, line {frame.lineno}: {frame.line}"
    return ""


def _is_standard(file: Path) -> bool:
    return file.is_relative_to(Path(inspect.__file__).parent)


def _import(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        # Kept: the user's code may import when its factory or its forward pass runs.
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            raise UsageError(
                f"There is no module {name!r} in the working directory or among the installed ones.",
                fix=f"Change into the folder that holds {name.split('.')[0]}. {_FORM}",
            ) from exc
        raise _failed(f"Importing {name}", exc) from exc
    except (Exception, SystemExit) as exc:
        raise _failed(f"Importing {name}", exc) from exc


def _require_callable(path: str, factory: Any) -> None:
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UsageError(
            f"{path} is a {type(factory).__name__}, no factory.",
            fix="Write a function without arguments that returns the network, and name that.",
        )
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return  # some built-in callables tell no signature; calling them will show
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if needed:
        raise UsageError(
            f"The factory {path} needs arguments: {', '.join(needed)}.",
            fix="Write a function without arguments that calls it with them, and name that.",
        )


def _failed(what: str, exc: BaseException) -> NetworkError:
    place = where(exc)
    said = " ".join(str(exc).split())[:200] or "no message"
    return NetworkError(
        f"{what} fails ({type(exc).__name__}: {said}{f'; {place}' if place else ''}).",
        fix="Make it work in Python first: import the module and call the factory.",
    )
