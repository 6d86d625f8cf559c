"""One self-contained HTML page: no scripts, no external resources, light and dark, narrow and wide."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from zmask_export.evaluate.bootstrap import Estimate


@dataclass(frozen=True)
class Value:
    """A table's entry: the number, and in small print its interval and number of images."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a head row; the first entry of every row is its heading."""

    head: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A drawing (an ``<svg>`` element) or picture (a ``data:`` address) with its caption."""

    caption: str
    svg: str = ""
    source: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    text: tuple[str, ...] = ()
    table: Table | None = None
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """A number to see first."""

    label: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A page; ``facts`` are pairs of label and value under its title, ``tiles`` what counts most."""

    title: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    tiles: tuple[Tile, ...] = ()


def value(estimate: Estimate | None, digits: int = 3, *, best: bool = False) -> Value:
    """An estimate as a table's entry; a dash where it is absent or not defined."""
    if estimate is None or estimate.value is None:
        return Value("-")
    count = f"n = {estimate.images}"
    if estimate.interval is not None:
        low, high = (f"{end:.{digits}f}" for end in estimate.interval)
        count = f"{low} to {high}, {count}"
    return Value(f"{estimate.value:.{digits}f}", count, best)


def render(page: Page) -> str:
    """The page as HTML; everything but the drawings is escaped."""
    template = (resources.files(__package__) / "page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # The drawings are our own; what users named stands escaped inside them.
    environment.filters["drawing"] = Markup
    return environment.from_string(template).render(page=page)
