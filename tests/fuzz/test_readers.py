"""The corpus and its mutations through every reader: an error of ours, or none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fuzzing.mutations import mutations
from fuzzing.readers import READERS, accepts

CORPUS = Path(__file__).parent / "corpus"
MUTATIONS = 300
SLOWEST_S = 5.0
MOST_BYTES = 64 << 10
"""Of the whole corpus."""


def _seeds(reader: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((CORPUS / reader).iterdir())}


@pytest.mark.parametrize("reader", READERS)
def test_mutations_are_refused_or_read(reader: str, tmp_path: Path) -> None:
    seeds = _seeds(reader)
    tried = [*seeds.values(), *mutations(list(seeds.values()), MUTATIONS)]
    for number, data in enumerate(tried):
        started = time.monotonic()
        try:
            accepts(reader, data, tmp_path)
        except Exception as exc:
            pytest.fail(f"input {number} ({data[:200]!r}): {exc!r}")
        assert time.monotonic() - started < SLOWEST_S


@pytest.mark.parametrize("reader", READERS)
def test_a_seed_is_read_so_that_mutations_reach_far(reader: str, tmp_path: Path) -> None:
    # A bundle's other files do not fit into one; its manifest is read to the end.
    taken = [name for name, data in _seeds(reader).items() if accepts(reader, data, tmp_path)]
    assert taken or reader in ("yaml",)


def test_the_corpus_is_small_and_whole() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(READERS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_BYTES


def test_mutations_are_the_same_every_time() -> None:
    seeds = [b"abc", b"0123456789" * 9]
    assert list(mutations(seeds, 50)) == list(mutations(seeds, 50))
    assert len(set(mutations(seeds, 50))) > 40
    assert list(mutations(seeds, 50, state=1)) != list(mutations(seeds, 50))
