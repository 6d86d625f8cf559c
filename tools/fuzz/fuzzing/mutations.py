"""Mutations of a seed without a fuzzer: the same ones every time."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

_EDGES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
_WORDS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1", b"0", b"null", b"true", b"[]", b"{}", b'""',
    b"99999999999999999999", b"!!int ''", b"!!bool x", b"!!timestamp x", b"&a [*a]", b"../../x", b"\\ud800",
    b"[" * 200, b"\0", b"\xff\xfe", b"9" * 5000,
)  # fmt: skip
_TOKEN = re.compile(rb"-?\d[\d.eE+-]*|\w{3,}|\"[^\"]*\"")


def mutations(seeds: Sequence[bytes], count: int, state: int = 0) -> Iterator[bytes]:
    """``count`` mutations of some seeds, of one to three steps each."""
    rng = random.Random(state)  # noqa: S311
    for _ in range(count):
        data = rng.choice(seeds)
        for _ in range(rng.randint(1, 3)):
            data = _changed(data, seeds, rng)
        yield data


def _changed(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(7)
    if kind == 0:  # a bit
        return (
            data[:at] + bytes(b ^ 1 << rng.randrange(8) for b in data[at : at + 1]) + data[at + 1 :]
        )
    if kind == 1:  # a number at the edge of its type
        width = rng.choice((1, 2, 4, 8))
        value = rng.choice(_EDGES) & ((1 << 8 * width) - 1)
        return data[:at] + value.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]
    if kind == 2:  # cut short
        return data[:at]
    if kind == 3:  # a piece gone
        return data[:at] + data[at + rng.randrange(1, 64) :]
    if kind == 4:  # a piece twice
        piece = data[at : at + rng.randrange(1, 64)]
        return data[:at] + piece * rng.choice((2, 3, 50)) + data[at:]
    if kind == 5:  # a piece of another seed
        other = rng.choice(seeds)
        start = rng.randrange(len(other) + 1)
        return data[:at] + other[start : start + rng.randrange(1, 256)] + data[at:]
    tokens = list(_TOKEN.finditer(data))
    if not tokens:
        return data[:at] + rng.choice(_WORDS) + data[at:]
    token = rng.choice(tokens)
    return data[: token.start()] + rng.choice(_WORDS) + data[token.end() :]
