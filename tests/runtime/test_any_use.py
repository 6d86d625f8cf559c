"""The public functions, called with anything: a result that makes sense, or an error of ours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drawn import SIZE
from zmask_export import Protected, Result, load
from zmask_export.errors import ZMaskError

numbers = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.floats(width=32).map(np.float32)
)
anything = (
    numbers | st.text(max_size=5) | st.binary(max_size=40) | st.lists(st.integers(), max_size=2)
)
shapes = st.lists(st.integers(0, 4), max_size=5).map(tuple) | st.sampled_from(
    [(*SIZE, 3), (2, *SIZE, 3), (3, *SIZE), (2, 3, *SIZE), (48, 64, 3), (1, *SIZE, 3)]
)
kinds = st.sampled_from(["u1", "u1", "f4", "f4", "f8", "f2", "i8", "?", "c8", "U3", "O", "M8[s]"])
edges = st.sampled_from([0, 1, 0.5, -1, 255, 1e30, 1e-45, math.nan, math.inf])


@st.composite
def images(draw: st.DrawFn) -> Any:
    """Arrays of any shape and type, few of which are images; lists of them."""
    count = draw(st.integers(0, 3))
    made = [_array(draw(shapes), draw(kinds), draw(edges)) for _ in range(count or 1)]
    return made if count else made[0]


def _array(shape: tuple[int, ...], kind: str, value: float) -> Any:
    counted = np.dtype(kind).kind in "uiM"
    whole = int(value) % 256 if math.isfinite(value) else 7
    with np.errstate(over="ignore"):
        return np.full(shape, whole if counted else value).astype(kind)


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Protected:
    return load(bundle, backend="onnxruntime-cpu", threads=1)


def says_what_to_do(error: ZMaskError) -> None:
    assert error.what.endswith(".")
    assert error.fix.endswith(".")


def makes_sense(result: Result) -> None:
    assert result.mask.shape == SIZE
    assert result.flag == (not result.score <= np.float32(result.threshold))
    assert result.flag or result.mask.all()
    assert ((result.soft_mask >= 0) & (result.soft_mask <= 1)).all()


@settings(max_examples=150, deadline=None)
@given(images(), numbers)
def test_any_array_is_run_or_refused(engine: Protected, image: Any, threshold: Any) -> None:
    try:
        found = engine(image, threshold=threshold)
    except ZMaskError as exc:
        says_what_to_do(exc)
        return
    for result in found if isinstance(found, list) else [found]:
        makes_sense(result)


@settings(max_examples=100, deadline=None)
@given(anything)
def test_anything_is_refused_or_run(engine: Protected, image: Any) -> None:
    with pytest.raises(ZMaskError):
        engine(image)


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "threads": anything,
            "verify_key": anything,
            "max_covered": anything,
            "backend": st.text(max_size=5),
        },
    )
)
def test_load_takes_or_refuses_any_option(detect_bundle: Path, options: dict[str, Any]) -> None:
    try:
        load(detect_bundle, **options).close()
    except ZMaskError as exc:
        says_what_to_do(exc)


@settings(max_examples=100, deadline=None)
@given(anything)
def test_what_is_no_bundle_is_refused(name: Any) -> None:
    with pytest.raises(ZMaskError):
        load(name)
