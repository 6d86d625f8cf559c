"""What must hold of the source as a whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "zmask_export"
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
MAX_LINES = 300

ROOMS = (
    "errors",
    "spec",
    "cluster",
    "data",
    "artifacts",
    "presets",
    "models",
    "backends",
    "foreign",
    "defense",
    "attack",
    "calibrate",
    "export",
    "fuse",
    "precision",
    "runtime",
    "drift",
    "evaluate",
    "verify",
    "profiling",
    "serve",
    "pipeline",
    "cli",
)
"""Every room imports only itself and rooms that stand before it."""


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _wrong_imports(room: str, source: str) -> list[str]:
    wrong = []
    for name in _imports(ast.parse(source)):
        if name.startswith("."):
            wrong.append(name)
        head, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if head != "zmask_export" or target == "__version__":
            continue
        if target not in ROOMS or ROOMS.index(target) > ROOMS.index(room):
            wrong.append(name)
    return wrong


def _names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


@pytest.mark.parametrize("path", MODULES, ids=_names(MODULES))
def test_a_room_imports_no_later_room(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    assert _room(path) in ROOMS, "a new room needs its place in ROOMS"
    assert _wrong_imports(_room(path), path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from zmask_export.spec import Spec", []),
        ("from zmask_export import __version__", []),
        ("from zmask_export.models.bare import BareNetwork", ["zmask_export.models.bare.BareNetwork"]),
        ("def f():\n    from zmask_export import cli", ["zmask_export.cli"]),
        ("import zmask_export.fuse.emit", ["zmask_export.fuse.emit"]),
        ("from zmask_export.attic import x", ["zmask_export.attic.x"]),
        ("from ..models import bare", ["..models.bare"]),
    ],
)  # fmt: skip
def test_the_import_check_finds_what_is_wrong(source: str, wrong: list[str]) -> None:
    assert _wrong_imports("artifacts", source) == wrong


def test_every_room_exists() -> None:
    there = {_room(path) for path in MODULES} - {"__init__"}
    assert set(ROOMS) == there


@pytest.mark.parametrize("path", MODULES + TOOLS, ids=_names(MODULES + TOOLS))
def test_a_module_is_short_and_finished(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= MAX_LINES
    assert path.name not in ("utils.py", "helpers.py", "common.py", "misc.py")
    marks = ("TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error")
    assert re.search(rf"\b({'|'.join(marks)})\b", text) is None


@pytest.mark.parametrize("path", MODULES, ids=_names(MODULES))
def test_the_package_neither_prints_nor_asserts(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print in line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=_names(MODULES))
def test_everything_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("zmask_export.runtime.protected", "torch torchvision tensorrt_rtx tensorrt"),
        ("zmask_export", "torch torchvision tensorrt_rtx tensorrt onnxruntime numpy"),
        ("zmask_export.cli.main", "torch torchvision tensorrt_rtx tensorrt onnxruntime"),
    ],
)
def test_an_entry_point_imports_nothing_heavy(module: str, absent: str) -> None:
    code = f"import sys, {module}; print(sorted(set(sys.modules) & set({absent.split()})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_no_file_names_this_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Put together here so that this file does not hold them itself.
    traces = [f"/{folder}/".encode() for folder in ("wo" + "rk", "ro" + "ot")]
    traces += [b"--index" + b"-url", b"--find" + b"-links"]
    found = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        data = path.read_bytes() if path.is_file() else b""
        if b"\0" not in data:
            found += [(name, trace) for trace in traces if trace in data]
    assert found == []
