from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image as Pictures

from tests.evaluate.reports import made_detector, made_network, made_report
from zmask_export.evaluate import figures
from zmask_export.evaluate.embedded import SCORE
from zmask_export.evaluate.examples import example
from zmask_export.evaluate.page import Figure, render
from zmask_export.evaluate.pages import scores_page, study_page
from zmask_export.evaluate.scores import DetectionScores, Scores, SegmentationScores
from zmask_export.evaluate.subjects import Image, Outcome
from zmask_export.runtime.detections import Detections

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Tree(HTMLParser):
    """Checks that elements close in order; collects headings of rows, ids, addresses and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.rows: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [given["id"]] if given.get("id") else []
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "th" and given.get("scope") == "row":
            self.rows.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.open and self.open[-1] == "th" and not self.rows[-1]:
            self.rows[-1] = data


@pytest.fixture(scope="module")
def page() -> str:
    return render(study_page(made_report(), {"icnet": (Figure("A frame", source="data:,x"),)}))


def test_the_page_has_every_row_and_every_figure(page: str) -> None:
    tree = Tree(page)
    network = made_network()
    rows = [*network.table, *network.beta, *(r for s in network.alpha.values() for r in s)]
    assert {row.attack for row in rows} <= set(tree.rows)
    assert tree.tags.count("svg") == 3
    for word in ("0.570", "0.550 to 0.590, n = 101", "MaskNet", "ICNet on CamVid", "A frame"):
        assert word in tree.text
    for item in (*network.left_out, *made_report().left_out):
        assert f"{item.what}: {item.why}" in tree.text
    for line in made_report().findings:
        assert line in tree.text


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    tree = Tree(page)
    assert {"script", "link", "iframe"}.isdisjoint(tree.tags)
    assert [a for a in tree.addresses if not a.startswith(("#", "data:"))] == []
    assert re.findall(r"@import|url\((?!#)", page) == []


def test_ids_are_unique_and_references_have_their_target(page: str) -> None:
    tree = Tree(page)
    assert len(set(tree.ids)) == len(tree.ids)
    used = set(re.findall(r"url\(#([^)]+)\)", page))
    used |= {address[1:] for address in tree.addresses if address.startswith("#")}
    assert used
    assert used <= set(tree.ids)


def test_drawings_take_the_pages_colour(page: str) -> None:
    drawing = page[page.index("<svg") : page.index("</svg>")]
    assert "currentColor" in drawing
    assert re.search(r"#000000|#010203|fill: (black|white)", drawing) is None


def test_equal_reports_give_equal_bytes(page: str) -> None:
    again = render(study_page(made_report(), {"icnet": (Figure("A frame", source="data:,x"),)}))
    assert page == again


def test_what_users_named_is_escaped() -> None:
    report = made_report(about="<script>alert(1)</script> & more")
    page = render(study_page(report, {}))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page


def test_the_best_defense_of_a_row_is_marked_and_the_oracle_never() -> None:
    (table,) = [
        section.table
        for section in study_page(made_report(made_network(lgs=0.58)), {}).sections
        if "Table" in section.title
    ]
    assert table is not None
    assert table.head == ("Patch", "Z-Mask", "MaskNet", "LGS", "none", "oracle")
    assert [[v.best for v in row[1:]] for row in table.rows] == [
        [True, False, False, True, False],
        [False, False, True, False, False],
    ]


def test_without_series_there_is_no_figure() -> None:
    network = made_network().model_copy(update={"beta": (), "alpha": {}, "roc": {}})
    assert figures.beta_figure(network) is None
    assert figures.alpha_figure(network) is None
    assert figures.roc_figure(network) is None
    assert "<svg" not in render(study_page(made_report(network), {}))


def test_a_line_stands_for_every_method_that_was_measured() -> None:
    network = made_network()
    drawn = figures.beta_figure(network)
    assert drawn is not None
    texts = re.findall(r">([^<>]+)</text>", drawn)
    # The upper part has detectors, the lower one defenses: Z-Mask stands in both.
    assert sorted(t for t in texts if t in ("Z-Mask", "HN", "FPDA", "LGS", "none", "MaskNet")) == [
        "FPDA", "HN", "LGS", "Z-Mask", "Z-Mask", "none",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [SegmentationScores, DetectionScores])
def test_the_page_of_one_bundle_has_every_number(kind: type[Scores]) -> None:
    numbers = dict.fromkeys(kind.labels, 0.25) | {"recovered": None}
    ends = dict.fromkeys(kind.labels, (0.125, 0.5)) | {"recovered": None}
    scores = kind(images=7, **numbers, intervals=ends)
    tree = Tree(render(scores_page("icnet under patch.png", scores)))
    assert tree.rows == [label for label, _ in kind.labels.values()]
    assert "(0.1250 to 0.5000)" in tree.text
    assert "icnet under patch.png" in tree.text
    assert ("mIoU" in tree.text) == (kind.task == "segmentation")
    assert ("mAP@0.5" in tree.text) == (kind.task == "detection")


def test_a_detectors_page_speaks_of_map() -> None:
    page = study_page(made_report(made_detector()), {})
    tree = Tree(render(page))
    assert "mIoU" not in tree.text
    for word in ("retinanet: Table 4(a)", "mAP@0.5, without objects", "over beta (Figure 13)"):
        assert word in tree.text
    assert tree.tags.count("svg") == 3
    tables = {section.title: section.table for section in page.sections}
    main, strict = (tables[f"retinanet: {name}"] for name in ("Table 4(a)", "mAP@[.5:.95]"))
    assert main is not None
    assert strict is not None
    assert main.head == strict.head == ("Patch", "Z-Mask", "MaskNet", "LGS", "none", "oracle")
    assert [row[1].text for row in main.rows] == ["0.600", "0.570"]
    assert [row[1].text for row in strict.rows] == ["0.300", "0.285"]
    assert "mAP" not in render(study_page(made_report(), {}))


class Halves:
    """Masks the left half, and predicts class 1 only with the defense."""

    threshold = 0.0
    colour = (0.0, 0.0, 0.0)

    def bare(self, image: Image) -> Outcome:
        return Outcome(np.zeros(image.shape[2:], np.uint8))

    def defended(self, image: Image) -> Outcome:
        kept = np.ones(image.shape[2:], bool)
        kept[:, : image.shape[3] // 2] = False
        return Outcome(np.ones(image.shape[2:], np.uint8), kept, {"zmask": 1.0})


class Finder:
    """Finds a car at the left and is not sure of one at the right, which the defense covers."""

    threshold = 0.0
    colour = (0.0, 0.0, 0.0)
    cars = Detections(
        np.array([[20, 40, 120, 160], [220, 40, 300, 160]], np.float32),
        np.array([0.9, SCORE - 0.01], np.float32),
        np.array([1, 1]),
    )

    def bare(self, image: Image) -> Outcome:
        return Outcome(detections=self.cars)

    def defended(self, image: Image) -> Outcome:
        kept = np.ones(image.shape[2:], bool)
        kept[:, 160:] = False
        return Outcome(kept=kept, scores={"zmask": 1.0}, detections=self.cars)


def opened(picture: Figure) -> np.ndarray:
    kind, _, data = picture.source.partition(";base64,")
    assert kind == "data:image/jpeg"
    return np.asarray(Pictures.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def test_example_pictures_of_a_detector_have_boxes() -> None:
    image = np.full((1, 3, 200, 320), 0.9, np.float32)
    pictures = example(Finder(), image, ("background", "car"), "L")
    assert [p.caption.split(" (")[0] for p in pictures] == [
        "Patched frame",
        "Covered by Z-Mask",
        "Objects found, bare",
        "Objects found, defended",
    ]
    frame, _, bare, defended = map(opened, pictures)
    for picture in (bare, defended):
        for y, x in ((100, 21), (100, 119), (159, 70)):
            red, green, blue = picture[y, x]
            assert max(red, green) < min(60, blue)
    # The unsure one is not drawn; what is covered is hatched.
    np.testing.assert_allclose(bare[:, 200:], frame[:, 200:], atol=12)
    assert np.abs(defended[20:180, 180:] - frame[20:180, 180:]).mean() > 20


def test_example_pictures_are_small_and_show_what_happened() -> None:
    image = np.full((1, 3, 400, 800), 0.5, np.float32)
    pictures = example(Halves(), image, ("sky", "road"), "L")
    shown = [opened(picture) for picture in pictures]
    assert [p.caption.split()[0] for p in pictures] == [
        "Patched",
        "Covered",
        "Prediction,",
        "Prediction,",
    ]
    assert {p.shape for p in shown} == {(160, 320, 3)}
    expected = [(128, 128, 128), (255, 0, 255), (70, 130, 180), (128, 64, 128)]
    for picture, colour in zip(shown, expected, strict=True):
        np.testing.assert_allclose(picture[80, 40], colour, atol=6)
    np.testing.assert_allclose(shown[1][80, 280], (128, 128, 128), atol=6)
