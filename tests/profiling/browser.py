"""A page in a real browser: what it says on the console, and whether it fits the window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--no-first-run", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000",
)  # fmt: skip
# Put into a copy of the page, for its own has no scripts.
_MEASURE = """<script>addEventListener("load", () => {
  const root = document.documentElement;
  const broken = [...document.images].filter(image => !image.naturalWidth).length;
  const seen = {inner: innerWidth, content: root.scrollWidth, height: root.scrollHeight, broken};
  seen.figures = [...document.querySelectorAll("figure svg, figure img")]
    .filter(figure => figure.getBoundingClientRect().height > 20).length;
  seen.background = getComputedStyle(document.body).backgroundColor;
  root.setAttribute("data-seen", JSON.stringify(seen));
});</script></body>"""


@dataclass(frozen=True)
class Seen:
    """What the browser made of a page.

    Attributes:
        console: every message.
        inner, content: pixels of the window and of what is in it.
        height: of the content.
        figures: drawings and pictures that are there to see.
        broken: pictures that are not.
        background: colour of the page.
    """

    console: list[str]
    inner: int
    content: int
    height: int
    figures: int
    broken: int
    background: str


def look(page: str, width: int, *, dark: bool = False) -> Seen:
    """Open a page in a window of ``width`` pixels."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "page.html"
        path.write_text(page.replace("</body>", _MEASURE), "utf-8")
        done = subprocess.run(
            [
                CHROMIUM, *_OPTIONS, f"--user-data-dir={name}/user", f"--window-size={width},900",
                *(["--blink-settings=preferredColorScheme=0"] if dark else []),
                "--dump-dom", path.as_uri(),
            ],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, "the page was not loaded"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(console=console, **json.loads(found[1].replace("&quot;", '"')))
