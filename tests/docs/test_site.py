"""The pages, built as ``make docs`` builds them: whole, and true where the code can tell."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml

from tests.conftest import ONE_THREAD, Inputs, link_tree, zmask
from tests.messages import patterns
from tests.test_readme import RUNNABLE
from zmask_export import errors
from zmask_export.cli import main as program
from zmask_export.pipeline.run import ImageRecord
from zmask_export.spec import Preset

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
"""What a browser fetches by itself."""

if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
    pytest.skip("mkdocs-material is not installed (the extra docs)", allow_module_level=True)


@dataclass
class Page(HTMLParser):
    """What one HTML file points to, and where one can point in it."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif (tag, name) in LOADED and value:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


@dataclass(frozen=True)
class Site:
    """The built pages by their path below the site's folder."""

    folder: Path
    pages: dict[str, Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env=ONE_THREAD | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    paths = [path for path in folder.rglob("*.html") if path.name != "404.html"]
    return Site(folder, {p.relative_to(folder).as_posix(): Page(p) for p in paths})


@pytest.fixture(scope="module")
def forms() -> ModuleType:
    """tools/manual/generated/forms.py, which writes the tables of fields."""
    sys.path.insert(0, str(ROOT / "tools" / "manual"))
    try:
        return importlib.import_module("generated.forms")
    finally:
        sys.path.pop(0)


def test_links_and_anchors_lead_somewhere(site: Site) -> None:
    wrong = []
    for name, page in site.pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = page.path
            if parts.path:
                target = (page.path.parent / unquote(parts.path)).resolve()
            key = target.relative_to(site.folder.resolve()).as_posix()
            known = site.pages[key].anchors if key in site.pages else set()
            if not target.is_file() or (parts.fragment and parts.fragment not in known):
                wrong.append((name, link))
    assert wrong == []
    assert sum(len(page.links) for page in site.pages.values()) > 500


def test_nothing_is_loaded_from_elsewhere(site: Site) -> None:
    foreign = [
        (name, url)
        for name, page in site.pages.items()
        for url in page.loaded
        if re.match(r"(https?:)?//", url)
    ]
    assert foreign == []
    for sheet in site.folder.rglob("*.css"):
        assert re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text("utf-8")) is None


@pytest.mark.parametrize("verb", sorted(program._VERBS))
def test_a_verb_has_its_page_with_every_option_and_example(site: Site, verb: str) -> None:
    assert f"{verb}.html" in site.pages["verbs/index.html"].links
    page = site.pages[f"verbs/{verb}.html"]
    command = program.cli.get_command(click.Context(program.cli), verb)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in page.text, parameter.opts[0]
    shown = zmask(verb, "--help").out
    examples = re.findall(rf"^ +(zmask-export {verb} .*?)(?: \\)?$", shown, re.MULTILINE)
    assert examples
    for example in examples:
        assert example in page.text


def test_every_error_has_its_code_and_its_section(site: Site) -> None:
    page = site.pages["troubleshooting.html"]
    classes = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ZMaskError)
    ]
    assert len(classes) >= 14
    for kind in classes[1:]:
        assert kind.__name__.lower() in page.anchors
        assert re.search(rf"{kind.__name__}\s+{kind.exit_code}\s", page.text), kind


def test_no_place_of_a_page_is_left_empty(site: Site) -> None:
    for name, page in site.pages.items():
        assert "<!-- " not in page.path.read_text("utf-8").partition("<article")[2], name


def test_every_field_of_a_form_is_explained(forms: ModuleType) -> None:
    shown = {
        path
        for page in DOCS.rglob("*.md")
        for path in re.findall(r"<!-- form: (\S+) -->", page.read_text("utf-8"))
    }
    assert len(shown) > 15
    missing = {path: names for path in shown if (names := forms.undocumented(path))}
    assert missing == {}, "say in the class's docstring, under Attributes, what these are"


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 25
    said = patterns(ROOT / "zmask_export")
    unsaid = [m for m in messages if not any(pattern.fullmatch(m) for pattern in said)]
    assert unsaid == []


def test_quick_start_is_what_the_readme_runs() -> None:
    page = (DOCS / "index.md").read_text("utf-8")
    commands = re.findall(r"^    ((?:python|zmask-export) .*)$", page, re.MULTILINE)
    assert len(commands) >= 7
    # tests/test_readme.py executes these.
    assert [command for command in commands if command not in RUNNABLE] == []


def _example(page: str, language: str) -> str:
    """The only code of a language on a page."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    return str(found)


def _execute(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


@pytest.mark.parametrize("page", ["index.md", "python.md"])
def test_python_examples_run(page: str, bundle: Path, inputs: Inputs) -> None:
    code = _example(page, "python").replace("engines/icnet", str(bundle))
    code = re.sub(r"street/\w+\.png", str(inputs.image), code)
    assert re.search(r"\b(True|False)\b", _execute(code))


def test_the_calibration_file_is_read_as_its_page_says() -> None:
    assert "convbnrelu1_2" in _execute(_example("files/calibration.md", "python"))


def test_the_bundle_is_checked_as_its_page_says(bundle: Path, tmp_path: Path) -> None:
    code = _example("files/bundle.md", "python")
    assert '"engines/icnet"' in code
    assert _execute(code.replace("engines/icnet", str(bundle))) == ""
    copy = link_tree(bundle, tmp_path / "copy")
    (copy / "parity.json").unlink()
    (copy / "parity.json").write_text("{}")
    with pytest.raises(subprocess.CalledProcessError):
        _execute(code.replace("engines/icnet", str(copy)))


def test_examples_have_the_form_that_their_pages_say() -> None:
    ImageRecord.model_validate_json(_example("files/results.md", "json"))
    preset = Preset.model_validate(yaml.safe_load(_example("files/presets.md", "yaml")))
    assert preset.corners == 24
    error: dict[str, Any] = json.loads(_example("troubleshooting.md", "json"))
    assert issubclass(getattr(errors, error.pop("error")), errors.OutputError)
    assert error.keys() == {"what", "fix"}
