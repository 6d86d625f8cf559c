"""A reader's own files: a module with factories, ONNX files, all small."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.foreign import graphs

FACTORIES = """\
import torch
from torch import nn
from torch.nn import functional as F

A_NUMBER = 3
A_NETWORK = nn.Conv2d(3, 4, 1)


class Net(nn.Module):
    def __init__(self, head=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.mid = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.classes = nn.Conv2d(16, 5, 1)
        self.again = nn.Conv2d(16, 16, 1)
        self.idle = nn.Conv2d(16, 16, 1)
        self.flat = nn.Flatten()
        self.head = head

    def forward(self, x):
        print("running")
        h = self.again(self.again(self.mid(self.stem(x))))
        flat = self.flat(h)
        scores = self.classes(h)
        return scores if self.head is None else self.head(scores, flat)


def make():
    print("made")
    return Net()


def needs(width, depth=2):
    return Net()


def fails():
    raise KeyError("no checkpoint here")


def no_module():
    return {"weights": 3}


def forward_fails():
    return Net(lambda scores, flat: scores @ flat)


def dictionary():
    return Net(lambda scores, flat: {"out": scores, "aux": scores * 2, "best": scores.argmax(1)})


def pair():
    return Net(lambda scores, flat: (scores, scores.mean((2, 3))))


def strings():
    return Net(lambda scores, flat: "road")


def no_batch():
    return Net(lambda scores, flat: scores.mean())


def half():
    return Net(lambda scores, flat: scores.half())


def eleven():
    net = Net()
    net.classes = nn.Conv2d(16, 11, 1)
    return net


def named_mask():
    return Net(lambda scores, flat: {"mask": scores, "aux": scores})


def bessel():
    return Net(lambda scores, flat: torch.special.bessel_j0(scores))


def branches():
    return Net(lambda scores, flat: scores * 2 if scores.sum() > 0 else scores)
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the user's modules, which is the working directory."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "nets.py").write_text(FACTORIES)
    (tmp_path / "own" / "broken.py").write_text("def make(:\n")
    (tmp_path / "own" / "exits.py").write_text("raise SystemExit(7)\n")
    (tmp_path / "own" / "lacks.py").write_text("import no_such_package_of_anybody\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "own"]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of opset 12 with a dynamic batch and size, weights among its inputs."""
    return graphs.save(graphs.network(), tmp_path_factory.mktemp("onnx") / "net.onnx")
