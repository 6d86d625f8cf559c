"""The errors of the package and their exit codes, from the classes themselves."""

from __future__ import annotations

from collections.abc import Iterator

from zmask_export.errors import ZMaskError

from .text import cell


def classes(base: type[ZMaskError] = ZMaskError) -> Iterator[type[ZMaskError]]:
    """Every error below ``base``, each before those that derive from it."""
    for kind in base.__subclasses__():
        if kind.__module__ == ZMaskError.__module__:
            yield kind
            yield from classes(kind)


def table(_: str = "") -> str:
    """Class, exit code, meaning; a derived class's place says from what."""
    rows = ["| class | exit code | says |", "| --- | --- | --- |"]
    for kind in classes():
        depth = len(kind.__mro__) - len(ZMaskError.__mro__)
        indent = "&nbsp;" * (4 * (depth - 1))  # an indent that a line does not break after
        rows.append(
            f"| {indent}[`{kind.__name__}`](#{kind.__name__.lower()}) | {kind.exit_code} "
            f"| {cell(kind.__doc__ or '')} |"
        )
    return "\n".join(rows)


def exit_codes(_: str = "") -> str:
    """Exit code to meaning; the classes' own, and those that no class stands for."""
    rows = ["| exit code | meaning |", "| --- | --- |", "| 0 | It is done. |"]
    rows.append("| 1 | A fault of the program itself, with a traceback: report it. |")
    for kind in ZMaskError.__subclasses__():
        if kind.__module__ == ZMaskError.__module__:
            rows.append(f"| {kind.exit_code} | {cell(kind.__doc__ or '')} |")
    again = "long runs go on where they stopped when started again"
    rows.append(f"| 130, 143, 129 | Interrupted by Ctrl-C, SIGTERM or SIGHUP; {again}. |")
    rows.append("| 141 | Nobody reads the output any more. |")
    return "\n".join(rows)
