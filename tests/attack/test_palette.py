from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zmask_export.attack import palette as palettes
from zmask_export.errors import InputError


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("0 0.5 1\n", [[0, 0.5, 1]]),
        ("0,0.5,1", [[0, 0.5, 1]]),
        ("# printer\n\n  255, 0, 51 \n0\t0\t1\n", [[0, 0, 1 / 255], [1, 0, 0.2]]),
        ("1 1 1\n0 0 0\n1 1 1\n", [[0, 0, 0], [1, 1, 1]]),
        ("1.5 0 0\n", [[1.5 / 255, 0, 0]]),
        ("1e-1 .2 +0.3", [[0.1, 0.2, 0.3]]),
    ],
)
def test_a_list_of_colours(tmp_path: Path, text: str, colours: list[list[float]]) -> None:
    palette = palettes.load(_text(tmp_path / "palette.txt", text))
    assert palette.dtype == torch.float32
    torch.testing.assert_close(palette, torch.tensor(colours, dtype=torch.float32))


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_the_colours_of_an_image(tmp_path: Path, mode: str) -> None:
    colours = np.array([[0, 0, 0], [0, 255, 51], [255, 0, 102]], np.uint8)
    pixels = colours[np.arange(400).reshape(20, 20) % 3]
    path = tmp_path / "palette.png"
    Image.fromarray(pixels).convert(mode, palette=Image.Palette.ADAPTIVE).save(path)
    torch.testing.assert_close(palettes.load(path), torch.from_numpy(colours / np.float32(255)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no colour"),
        ("# nothing\n\n", "holds no colour"),
        ("0 0 0\n0 0\n", "no colour in line 2 ('0 0')"),
        ("0 0 0 0\n", "no colour in line 1"),
        ("red 0 0\n", "no colour in line 1 ('red 0 0')"),
        ("0 0 256\n", "no colour in line 1"),
        ("0 0 -0.1\n", "no colour in line 1"),
        ("0 nan 0\n", "no colour in line 1"),
        ("\n".join(f"{i} 0 0" for i in range(256)) + "\n0 1 0", "holds 257 colours"),
    ],
)
def test_what_is_no_list_of_colours(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        palettes.load(_text(tmp_path / "palette.txt", text))
    assert why in caught.value.what
    assert "palette.txt" in caught.value.what
    assert "r g b" in caught.value.fix


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long.txt").write_text("0 0 0\n" * 200_000)
    (tmp_path / "text.png").write_text("0 0 0\n")
    for name in ("none.txt", "binary.txt", "long.txt", "text.png", "none.png", ""):
        with pytest.raises(InputError) as caught:
            palettes.load(tmp_path / name)
        assert name in caught.value.what


def test_a_photograph_is_no_palette(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match="holds 1600 colours, more than 256"):
        palettes.load(tmp_path / "photo.png")


def test_the_hash_is_of_the_colours_alone(tmp_path: Path) -> None:
    first = palettes.load(_text(tmp_path / "a.txt", "0 0 0\n255 255 255\n"))
    again = palettes.load(_text(tmp_path / "b.txt", "# mine\n1,1,1\n0,0,0\n1,1,1"))
    other = palettes.load(_text(tmp_path / "c.txt", "0 0 0\n255 255 254\n"))
    assert palettes.sha256(first) == palettes.sha256(again)
    assert palettes.sha256(first) != palettes.sha256(other)
