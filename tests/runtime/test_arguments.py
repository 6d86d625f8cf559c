"""What is no path, no number of threads, no share and no threshold, and what users are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zmask_export.errors import UsageError
from zmask_export.runtime.arguments import (
    MOST_THREADS,
    require_path,
    require_share,
    require_threads,
    require_threshold,
)

Check = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("check", "given", "taken"),
    [
        (require_path, "a/b", Path("a/b")),
        (require_path, Path("a"), Path("a")),
        (require_threads, 0, 0),
        (require_threads, np.int64(2), 2),
        (require_threads, MOST_THREADS, MOST_THREADS),
        (require_share, 0, 0.0),
        (require_share, np.float32(0.5), 0.5),
        (require_share, 1, 1.0),
        (require_threshold, 0, 0.0),
        (require_threshold, float("inf"), float("inf")),
    ],
)
def test_taken(check: Check, given: Any, taken: Any) -> None:
    found = check(given)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("check", "given", "what", "fix"),
    [
        (require_path, "a\0b", "'a\\x00b' is no path.", "Give the folder or file as str or Path."),
        (require_path, b"a", "b'a' is no path.", "Give the folder or file as str or Path."),
        (require_path, 3, "3 is no path.", "Give the folder or file as str or Path."),
        (require_threads, -1, "-1 threads are not possible.", "Give 0 to 4096."),
        (require_threads, 4097, "4097 threads are not possible.", "Give 0 to 4096."),
        (require_threads, 1.0, "1.0 threads are not possible.", "Give 0 to 4096."),
        (require_share, 1.5, "A covered share of 1.5 is not in [0, 1].", "Give for example 0.5."),
        (require_share, "1", "A covered share of 1 is not in [0, 1].", "Give for example 0.5."),
        (
            require_threshold,
            float("nan"),
            "A threshold of nan is not possible.",
            "Give a number of at least 0.",
        ),
    ],
)
def test_refused(check: Check, given: Any, what: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(given)
    assert (caught.value.what, caught.value.fix) == (what, fix)
