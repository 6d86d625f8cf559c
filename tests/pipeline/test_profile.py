from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import pytest

from tests.conftest import Inputs, Outcome, assert_refused, link_tree, zmask
from tests.profiling.browser import look, needs_browser
from zmask_export.artifacts.bundle import read_manifest
from zmask_export.artifacts.manifest import FILE_NAME, Manifest, describe_files
from zmask_export.backends.gpu import gpu_count
from zmask_export.pipeline.profile_files import default_folder
from zmask_export.pipeline.rewrite import rewrite
from zmask_export.profiling.record import LatencyReport
from zmask_export.runtime.protected import load


@pytest.fixture(scope="module")
def profiled(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The results' folder, and what the command said."""
    folder = tmp_path_factory.mktemp("profile") / "out"
    outcome = zmask(
        "profile", bundle, "--seconds", 4, "--batch", 2, "--batch", 1, "--threads", 1,
        "--out", folder, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    return folder, outcome


@pytest.fixture(scope="module")
def report(profiled: tuple[Path, Outcome]) -> LatencyReport:
    return LatencyReport.model_validate_json((profiled[0] / "latency.json").read_text())


@pytest.fixture(scope="module")
def page(profiled: tuple[Path, Outcome]) -> str:
    return (profiled[0] / "report.html").read_text("utf-8")


def test_the_record_is_printed_and_written(
    profiled: tuple[Path, Outcome], report: LatencyReport, bundle: Path
) -> None:
    folder, outcome = profiled
    assert sorted(path.name for path in folder.iterdir()) == ["latency.json", "report.html"]
    assert outcome.record == json.loads((folder / "latency.json").read_text())
    manifest = read_manifest(bundle)
    assert (report.name, report.graph_sha256) == ("gated", manifest.files["protected.onnx"].sha256)
    assert report.engines == manifest.engines


def test_bare_and_protected_take_turns_at_every_batch(report: LatencyReport) -> None:
    kinds = [("bare", None), ("protected", "clean"), ("protected", "attacked")]
    found = [(case.batch, case.case, case.frame) for case in report.cases]
    assert found == [(batch, *kind) for batch in (1, 2) for kind in kinds]
    for case in report.cases:
        times = case.latency
        assert times.runs == len(case.rounds_ms) >= (3 if case.batch == 1 else 1)
        assert min(case.rounds_ms) <= times.p50 <= times.p90 <= times.p99 <= times.max
        assert times.images_per_second == pytest.approx(case.batch * 1e3 / times.mean)
        bare = report.find("bare", None, case.batch)
        if case.over_bare is None:
            assert case == bare
        else:
            ratios = zip(case.rounds_ms, bare.rounds_ms, strict=True)
            assert list(case.over_bare.rounds) == pytest.approx([a / b for a, b in ratios])
    # The network is part of the protected graph, and runs twice on attacked frames.
    for batch in report.batches:
        clean = report.find("protected", "clean", batch)
        attacked = report.find("protected", "attacked", batch)
        assert clean.over_bare is not None
        assert clean.over_bare.median > 1
        assert attacked.latency.p50 > clean.latency.p50


def test_the_parts_explain_the_measured_time(report: LatencyReport) -> None:
    clean, attacked = report.parts
    assert (clean.frame, attacked.frame, clean.batch) == ("clean", "attacked", 1)
    for found in report.parts:
        known = sum(found.parts_ms.values()) + found.between_nodes_ms
        assert known + found.profiler_ms == pytest.approx(found.profiled_ms, rel=0.05)
        # A small network on a busy machine: the demo's comes nearer.
        assert known == pytest.approx(found.measured_ms, rel=0.3)
        assert found.part("network") > 0
        assert found.part("cascade") > 0
        # Of so small an input they may be lost in what the profiler costs.
        taps = ("res_block5", "conv5_4_k1")
        assert {"fusion", *(f"zscore/{tap}" for tap in taps)} <= found.parts_ms.keys()
    assert clean.part("second_pass") == 0
    assert attacked.part("second_pass") > 0.1 * clean.part("network")


def test_memory_is_that_of_the_larger_batch(report: LatencyReport) -> None:
    assert [(m.case, m.batch) for m in report.memory] == [("bare", 2), ("protected", 2)]
    weights = 20e6  # of ICNet, in float32
    for found in report.memory:
        assert weights < found.growth.loaded < 2e9
        assert found.growth.ran > weights


def test_drawn_frames_say_how_the_defense_was_made_to_act(report: LatencyReport) -> None:
    clean, attacked = report.frames
    assert clean.threshold > 1e30
    assert attacked.threshold < 0
    assert "below every score" in attacked.about
    assert clean.images == ("scene-0", "scene-1")


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
        self.found += [value or "" for name, value in attrs if name in names]


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    links = _Links()
    links.feed(page)
    assert [link for link in links.found if not link.startswith(("data:image/", "#"))] == []
    assert links.tags.isdisjoint({"script", "link", "iframe", "object", "embed"})
    assert re.findall(r"url\((?!#)|@import", page) == []


def test_the_page_joins_latency_parity_calibration_and_examples(
    page: str, report: LatencyReport
) -> None:
    titles = set(re.findall(r"<h2>(.*?)</h2>", page))
    wanted = {"Latency", "Where the time goes", "Memory", "Parity", "Calibration", "Defense"}
    wanted |= {"Examples", "Settings", *(["Engines"] if report.engines else [])}
    assert wanted <= titles
    # Latency of either batch, parts, scores, ROC; both frames, and what the engine says of them.
    assert (page.count("<svg"), page.count("<img")) == (5, 4)
    clean = report.find("protected", "clean", 1).latency
    assert f"<strong>{clean.p50:.1f} ms</strong>" in page


@needs_browser
@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_without_complaint(page: str, width: int, dark: bool) -> None:
    seen = look(page, width, dark=dark)
    assert seen.console == []
    assert seen.content <= seen.inner == width
    assert (seen.figures, seen.broken) == (9, 0)
    assert seen.height > 2000
    assert (seen.background == "rgb(255, 255, 255)") != dark


def test_a_report_goes_into_the_bundle_with_its_hashes(
    detect_bundle: Path, inputs: Inputs, tmp_path: Path
) -> None:
    copy = link_tree(detect_bundle, tmp_path / "copy")
    before = read_manifest(copy)
    outcome = zmask(
        "profile", copy, "--add", "--image", inputs.image, "--attacked", inputs.images,
        "--seconds", 0, "--batch", 1, "--threads", 1,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "protected, attacked, batch 1" in outcome.out
    manifest = read_manifest(copy)
    added = manifest.files.keys() - before.files.keys()
    assert added == {"latency.json", "report.html"}
    assert manifest.model_copy(update={"files": before.files}).sealed() == before
    assert before.files.items() <= manifest.files.items()
    assert load(copy).manifest == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]

    report = LatencyReport.model_validate_json((copy / "latency.json").read_text())
    clean, attacked = report.frames
    assert clean.images == (str(inputs.image),)
    assert attacked.images == (str(inputs.images / "0.png"),)
    assert clean.threshold == attacked.threshold == manifest.threshold
    assert (clean.flagged, attacked.flagged) == (attacked.flagged, clean.flagged)
    assert report.parts[1].part("second_pass") == 0  # policy detect has none

    # Again, in the place of the first.
    rewrite(copy, {"latency.json": "{}"}, None)
    assert (copy / "latency.json").read_text() == "{}"
    assert read_manifest(copy).files.keys() == manifest.files.keys()


def test_what_cannot_be_is_refused_before_anything_runs(bundle: Path, tmp_path: Path) -> None:
    assert_refused(zmask("profile", bundle, "--out", bundle / "x"), 2, "hashed", "--add")
    assert_refused(zmask("profile", bundle, "--out", tmp_path, "--add"), 2, "--add", "--out")
    assert_refused(zmask("profile", tmp_path), 4, "no bundle")
    if gpu_count() == 0:
        assert_refused(zmask("profile", bundle, "--device", "cuda"), 2, "cuda")
    copy = link_tree(bundle, tmp_path / "fixed")
    manifest = Manifest.model_validate_json((copy / FILE_NAME).read_text())
    (copy / FILE_NAME).unlink()
    (copy / FILE_NAME).write_bytes(manifest.model_copy(update={"batch": 2}).sealed().to_bytes())
    assert_refused(zmask("profile", copy, "--batch", 1), 2, "batches of 2")


def test_results_go_beside_the_bundle_by_default(tmp_path: Path) -> None:
    assert default_folder(Path("engines/icnet")) == Path("engines/icnet-profile")
    (tmp_path / "net").mkdir()
    for way in (tmp_path / "net" / "x" / "..", tmp_path / "net"):
        assert default_folder(way).resolve() == tmp_path / "net-profile"


def test_a_damaged_parity_file_is_a_bundle_error(bundle: Path, tmp_path: Path) -> None:
    copy = link_tree(bundle, tmp_path / "copy")
    (copy / "parity.json").unlink()
    (copy / "parity.json").write_text("{}")
    manifest = Manifest.model_validate_json((copy / FILE_NAME).read_text())
    (copy / FILE_NAME).unlink()
    changed = manifest.model_copy(update={"files": describe_files(copy)})
    (copy / FILE_NAME).write_bytes(changed.sealed().to_bytes())
    assert_refused(zmask("profile", copy), 4, "parity.json")  # at once
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
