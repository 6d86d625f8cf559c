"""Which patches a study measures which subjects under, and what it leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zmask_export.evaluate.study import TABLE_ROWS, NetworkStudy, Series
from zmask_export.spec import Spec

DETECTORS = "detectors"
"""The subject that gives the scores of HN and FPDA in one pass."""

_TABLE = ("none", "zmask", "lgs", "masknet", "oracle", DETECTORS)
_BY_SERIES = {
    "beta": ("none", "zmask", "lgs", "masknet", DETECTORS),
    "mask": ("none", "zmask"),
    "flag": ("none", "zmask"),
    "masknet": ("none", "masknet"),
}


class LeftOut(Spec):
    """Something that the study names and that is not there.

    Attributes:
        what: a row, a point of a series, a rival or a network.
        why: the missing file.
    """

    what: str
    why: str


@dataclass(frozen=True)
class Attack:
    """A row of the table, or a point of a series.

    Attributes:
        name: "None", "L", "beta 0.1".
        patch: its file; None for clean images.
        subjects: what is measured under it.
        series: "beta", "mask", "flag" or "masknet"; None for the table.
        value: beta or alpha.
    """

    name: str
    patch: Path | None
    subjects: tuple[str, ...]
    series: str | None = None
    value: float | None = None

    def file(self, subject: str) -> str:
        """Name of a cell's file."""
        return f"{self.name.replace(' ', '-')}.{subject}.safetensors"


def attacks(network: NetworkStudy) -> tuple[list[Attack], list[LeftOut]]:
    """Everything to measure, clean images first, and the patches whose files are absent."""
    wanted = [Attack(row, network.patches.get(row), _TABLE) for row in TABLE_ROWS]
    series: list[tuple[str, Series]] = [*network.alpha.items()]
    if network.beta is not None:
        series.insert(0, ("beta", network.beta))
    for name, points in series:
        wanted += [
            Attack(f"{name} {value!r}", points.path(value), _BY_SERIES[name], name, value)
            for value in sorted(points.values)
        ]
    present = [Attack("None", None, tuple(s for s in _TABLE if s != "oracle"))]
    absent = []
    for attack in wanted:
        if attack.patch is None:
            absent.append(
                LeftOut(what=f"patch {attack.name}", why="the study names no file for it")
            )
        elif not attack.patch.is_file():
            absent.append(LeftOut(what=f"patch {attack.name}", why=missing(attack.patch)))
        else:
            present.append(attack)
    return present, absent


def missing(path: Path) -> str:
    """Why a path's owner is left out: its name alone, for reports travel to other machines."""
    return f"{path.parent.name}/{path.name} is not there"
