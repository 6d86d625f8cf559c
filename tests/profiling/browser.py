"""A page in a real browser: what it says on the console, and whether it fits the window."""

from __future__ import annotations

import html
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
# A frame has any width, a window has not. It is tall, so that no scroll bar takes of its width.
_AROUND = """<!DOCTYPE html><html><head><meta name="color-scheme" content="light dark"></head><body>
<iframe style="width: {width}px; height: 30000px; border: 0" srcdoc="{page}"></iframe>
<script>addEventListener("load", () => {{
  const inside = document.querySelector("iframe").contentWindow;
  const page = inside.document, root = page.documentElement;
  const seen = {{inner: inside.innerWidth, content: root.scrollWidth}};
  seen.height = page.body.getBoundingClientRect().height;
  seen.broken = [...page.images].filter(image => !image.naturalWidth).length;
  seen.figures = [...page.querySelectorAll("figure svg, figure img")]
    .filter(figure => figure.getBoundingClientRect().height > 20).length;
  seen.background = inside.getComputedStyle(page.body).backgroundColor;
  document.documentElement.setAttribute("data-seen", JSON.stringify(seen));
}});</script></body></html>"""


@dataclass(frozen=True)
class Seen:
    """What the browser made of a page.

    Attributes:
        console: every message.
        inner, content: pixels of the frame's width and of what is in it.
        height: of the content.
        figures: drawings and pictures that are there to see.
        broken: pictures that are not.
        background: colour of the page.
    """

    console: list[str]
    inner: int
    content: int
    height: float
    figures: int
    broken: int
    background: str


def look(page: str, width: int, *, dark: bool = False) -> Seen:
    """Open a page in a frame of ``width`` pixels."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "page.html"
        path.write_text(_AROUND.format(width=width, page=html.escape(page)), "utf-8")
        done = subprocess.run(
            [
                CHROMIUM, *_OPTIONS, f"--user-data-dir={name}/user", "--window-size=1400,900",
                *(["--blink-settings=preferredColorScheme=0"] if dark else []),
                "--dump-dom", path.as_uri(),
            ],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, "the page was not loaded"
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(console=console, **json.loads(html.unescape(found[1])))
