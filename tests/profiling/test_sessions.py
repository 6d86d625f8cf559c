from __future__ import annotations

import numpy as np
import pytest

from zmask_export.errors import BackendError
from zmask_export.profiling.overhead import steps_graph, steps_input
from zmask_export.profiling.sessions import bound, open_session


def test_a_refused_graph_is_an_error_of_ours() -> None:
    with pytest.raises(BackendError, match="cannot load"):
        open_session(b"nothing", threads=1)


def test_a_run_that_fails_is_an_error_of_ours() -> None:
    session = open_session(steps_graph(), threads=1)
    bound(session, steps_input())()
    wrong = {"x": np.zeros((1, 2, 2, 3), np.float32)}
    with pytest.raises(BackendError, match="failed"):
        bound(session, wrong)()
