"""From the plain text of docstrings and help to Markdown."""

from __future__ import annotations

import inspect
import re

_CODE = re.compile(r"`[^`]*`")
# Options, file names and formulas that help texts write plainly.
_OPTION = re.compile(r"(?<![\w`-])--[a-z][a-z-]*")
_SECTION = re.compile(r"^([A-Z][a-z]+):$", re.MULTILINE)
_ENTRY = re.compile(r"^([\w, ]+?): (.*)$")


def prose(text: str) -> str:
    """A help text or docstring as Markdown: reST's marks gone, options set as code, no stray HTML."""
    text = re.sub(r":(?:class|func|meth|data|mod):`~?([^`]*)`", r"`\1`", text).replace("``", "`")
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [_plain(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _plain(text[end:])])


def _plain(text: str) -> str:
    escaped = re.sub(r"([*_<>\[\]])", r"\\\1", text)
    return _OPTION.sub(lambda found: f"`{found[0]}`", escaped)


def cell(text: str) -> str:
    """The same on one line of a table."""
    return " ".join(prose(text).replace("|", "\\|").split())


def summary(documented: object) -> str:
    """The part of a docstring before its first section."""
    return _SECTION.split(inspect.getdoc(documented) or "")[0].strip()


def section(documented: object, name: str) -> dict[str, str]:
    """Entries of a section such as ``Attributes`` of a docstring: name to text.

    An entry for several names, separated by commas, counts for each.
    """
    pieces = _SECTION.split(inspect.getdoc(documented) or "")
    body = next((b for n, b in zip(pieces[1::2], pieces[2::2], strict=True) if n == name), "")
    depth = _depth(body)
    # Names that go on in the next line stand on one.
    body = re.sub(rf"^(\s{{{depth}}}[\w, ]+,)\n\s+(?=[\w, ]+: )", r"\1 ", body, flags=re.MULTILINE)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in body.splitlines():
        entry = _ENTRY.match(line[depth:])
        if entry and not line[:depth].strip():
            names = [part.strip() for part in entry[1].split(",")]
            found |= dict.fromkeys(names, entry[2])
        elif line[:depth].strip():
            break
        else:
            for known in names:
                found[known] += f" {line.strip()}"
    return found


def _depth(body: str) -> int:
    first = next((line for line in body.splitlines() if line.strip()), "")
    return len(first) - len(first.lstrip())
