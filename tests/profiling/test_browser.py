"""That the browser's eye sees what is wrong."""

from __future__ import annotations

import pytest

from tests.profiling.browser import look, needs_browser

pytestmark = needs_browser

PAGE = "<!DOCTYPE html><html><head><title>t</title></head><body>{}</body></html>"


@pytest.mark.parametrize(
    "wrong",
    [
        "<script>console.error('ouch')</script>",
        "<script>nowhere()</script>",
    ],
)
def test_errors_reach_the_console(wrong: str) -> None:
    assert look(PAGE.format(wrong), 800).console


def test_a_picture_that_is_not_there_is_noticed() -> None:
    assert look(PAGE.format("<img src='absent.png'>"), 800).broken == 1


def test_content_that_is_too_wide_is_noticed() -> None:
    seen = look(PAGE.format("<div style='width: 900px'>wide</div>"), 800)
    assert seen.inner == 800 < seen.content
    assert seen.console == []
