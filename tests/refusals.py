"""docs/bad-inputs.md: every refusal that the tests saw, as the table that users read."""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("tests/cli", "tests/foreign", "tests/faults/test_outputs.py")
"""What the table is made of."""
COMMAND = f"python -m pytest {' '.join(FOLDERS)} -m 'not slow' --bad-inputs docs/bad-inputs.md"

_HEAD = f"""\
# Bad inputs

What a user sees who gives what cannot be used: one sentence what is wrong, one how to fix it, and an exit
code (2: the command, 4: what was handed over, 5: the result's place, 6: a compiler or runner). Never a
traceback, and nothing half-written. The tests wrote this page while they checked that; after a change, from
the repository's root:

    {COMMAND}

Paths are shortened to their last name. What readers of files do with bytes that nobody thought of is looked
for by fuzzing (`pip install -e '.[fuzz]'`; a JSON object a reader, exit code 1 where something was found):

    python tools/fuzz/run.py --reader all --seconds 600 --json
"""
_COLUMNS = "| input | verb | exit | what the user sees |\n| --- | --- | --- | --- |\n"
_NODE = re.compile(r"(?P<file>[^:]+)::(?P<test>\w+)(?:\[(?P<case>.*)\])? \(\w+\)")


@dataclass(frozen=True, order=True)
class Refusal:
    """A row: where it was seen, the input in words, the verb, the exit code, the two sentences."""

    file: str
    what: str
    verb: str
    code: int
    said: str


def refusal(
    node: str, arguments: Sequence[str], code: int, error: str, fix: str, roots: Iterable[Path]
) -> Refusal:
    """The row of one refusal.

    Args:
        node: pytest's name of the running test, with its phase.
        arguments: of the command.
        code: its exit code.
        error, fix: its last two lines.
        roots: folders whose paths are shortened.
    """
    found = _NODE.fullmatch(node)
    if found is None:
        raise ValueError(f"{node!r} is no running test")
    what = found["test"].removeprefix("test_").replace("_", " ")
    if found["case"]:
        what = f"{what}: {found['case'].replace('_', ' ').strip()}"
    said = f"{error} {fix.strip()}"
    for root in roots:
        # The names in a path may hold spaces only where the message quotes it.
        said = re.sub(
            rf"{re.escape(str(root))}(?:/[^\s'\",;:()]+)*",
            lambda path: Path(path[0].rstrip(".")).name + "." * path[0].endswith("."),
            said,
        )
    verb = arguments[0] if arguments else ""
    return Refusal(found["file"], what, verb, code, said)


def roots(basetemp: Path) -> list[Path]:
    """Folders of this machine, the innermost first."""
    given = (basetemp, ROOT, Path(tempfile.gettempdir()), Path(sys.prefix), Path(sys.base_prefix))
    folders = {path for root in given for path in (root, root.resolve())}
    return sorted(folders, key=lambda path: -len(path.parts))


def render(rows: Iterable[Refusal]) -> str:
    """The page; equal rows give equal bytes, in whatever order."""
    parts = [_HEAD]
    by_file: dict[str, list[Refusal]] = {}
    for row in sorted(set(rows)):
        by_file.setdefault(row.file, []).append(row)
    for file, own in by_file.items():
        lines = "".join(
            f"| {_cell(row.what)} | {_cell(row.verb)} | {row.code} | {_cell(row.said)} |\n"
            for row in own
        )
        parts.append(f"\n## {_title(file)}\n\n{_COLUMNS}{lines}")
    return "".join(parts)


def rows_of(page: str) -> list[tuple[str, str, int, str]]:
    """Input, verb, exit code and message of every row of a page, as they were before :func:`render`."""
    found = []
    for line in page.splitlines():
        cells = [_uncell(c) for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[2].isdecimal():
            found.append((cells[0], cells[1], int(cells[2]), cells[3]))
    return found


def _title(file: str) -> str:
    """What the tests' file says that it is about."""
    said = ast.get_docstring(ast.parse((ROOT / file).read_text("utf-8")))
    if said is None:
        return Path(file).stem.removeprefix("test_").replace("_", " ").capitalize()
    return said.splitlines()[0].partition(":")[0].removesuffix(".")


_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~^=+])")


def _cell(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _uncell(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text.strip())
