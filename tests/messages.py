"""What a package may say, read from its source: to hold pages against it that quote messages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

_PLACE = re.compile(r"\\{\w*\\}")


def patterns(package: Path, least: int = 12) -> list[re.Pattern[str]]:
    """Every text of a package that may be a message, with values as wildcards.

    Args:
        package: its folder.
        least: characters of a message that are no values.
    """
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            fixed = [str(p.value) for p in parts if isinstance(p, ast.Constant)]
            # What is nearly all values would allow anything.
            if len("".join(fixed)) >= least:
                text = "".join(
                    re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in parts
                )
                found.add(_PLACE.sub(".+", text))
    return [re.compile(pattern) for pattern in found]
