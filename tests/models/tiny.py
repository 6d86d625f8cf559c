"""A registered network of three layers, for tests of checkpoints."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from zmask_export.models.registry import ModelEntry
from zmask_export.spec import PREPROCESS


def tiny(classes: int) -> nn.Module:
    layers = OrderedDict(
        body=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Conv2d(4, classes, 1)
    )
    return nn.Sequential(layers)


TINY = ModelEntry(
    name="tiny",
    factory=tiny,
    classes=2,
    preprocess=PREPROCESS["unit"],
    taps={"body": "body"},
    shallow=("body",),
    deep=("body",),
    min_side=3,
    classes_from="head.weight",
    unused=("extra.",),
)
