from __future__ import annotations

import pickle
import re

import pytest

from zmask_export import errors
from zmask_export.errors import ZMaskError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, Exception)
]


def _tree() -> dict[str, tuple[str | None, int]]:
    """Class to (parent, exit code), read off the drawing in the module's docstring."""
    tree: dict[str, tuple[str | None, int]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│├└─ ]*)(\w+Error)\b\s+(?:(\d)\s)?", line + " ")
        if match is None:
            continue
        depth = len(match[1]) // 4
        path = [*path[:depth], match[2]]
        parent = path[depth - 1] if depth else None
        inherited = tree[parent][1] if parent else ZMaskError.exit_code
        tree[match[2]] = (parent, int(match[3]) if match[3] else inherited)
    return tree


def test_the_drawn_tree_is_the_tree() -> None:
    real = {
        c.__name__: (None if c is ZMaskError else c.__bases__[0].__name__, c.exit_code)
        for c in CLASSES
    }
    assert _tree() == real
    assert len(real) >= 13


def test_the_exit_codes_are_those_users_script_against() -> None:
    codes = {name: code for name, (_, code) in _tree().items()}
    assert codes["UsageError"] == 2
    assert codes["ParityError"] == 3
    assert codes["InputError"] == codes["BundleError"] == codes["ShapeError"] == 4
    assert codes["OutputError"] == 5
    assert codes["CompileError"] == codes["BackendUnavailableError"] == 6


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_an_error_says_what_and_how_to_fix_it(error: type[ZMaskError]) -> None:
    raised = error("It broke.", fix="Mend it.")
    assert str(raised).splitlines() == ["It broke.", "  Fix: Mend it."]
    assert (raised.what, raised.fix) == ("It broke.", "Mend it.")
    assert error.__doc__


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_an_error_travels_between_processes(error: type[ZMaskError]) -> None:
    arrived = pickle.loads(pickle.dumps(error("It broke.", fix="Mend it.")))  # noqa: S301
    assert type(arrived) is error
    assert (arrived.what, arrived.fix) == ("It broke.", "Mend it.")
    assert arrived.args == ("It broke.",)


def test_an_error_without_a_fix_cannot_be_made() -> None:
    with pytest.raises(TypeError):
        ZMaskError("It broke.")  # type: ignore[call-arg]
