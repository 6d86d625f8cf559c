"""Numbers of the security page are those of the study's report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "security.md").read_text("utf-8")
NETWORKS: dict[str, Any] = {
    network["name"]: network
    for network in json.loads((DOCS / "camvid" / "report.json").read_text("utf-8"))["networks"]
}
ROW = re.compile(r"^\| (\w+), Adv-(Mask|Flag) \| ([\d. |]+) \|$", re.MULTILINE)
SEGMENTED = ("icnet", "ddrnet", "bisenet")


def test_the_defense_aware_attacks_are_the_worst_measured() -> None:
    rows = ROW.findall(PAGE)
    assert len(rows) == 2 * len(SEGMENTED)
    for name, attack, cells in rows:
        series = NETWORKS[name]["alpha"][attack.lower()]
        assert len(series) == 11
        assert {row["miou"]["zmask"]["images"] for row in series} == {34}
        worst = min(series, key=lambda row: row["miou"]["zmask"]["value"])
        plain = max(series, key=lambda row: row["value"])
        measured = [
            f"{worst['value']:.1f}",
            f"{worst['miou']['none']['value']:.3f}",
            f"{worst['miou']['zmask']['value']:.3f}",
            f"{worst['flagged']['value']:.3f}",
            f"{plain['miou']['zmask']['value']:.3f}",
        ]
        assert cells.split(" | ") == measured, (name, attack)
        bare = (worst["miou"]["none"]["value"], plain["miou"]["none"]["value"])
        if attack == "Flag":
            assert f"{bare[0]:.3f} against {bare[1]:.3f} with" in PAGE.replace("\n", " ")


def test_the_weak_patches_are_as_measured() -> None:
    weakest = [NETWORKS[name]["beta"][0] for name in SEGMENTED]
    assert {row["value"] for row in weakest} == {0.1}
    assert {row["flagged"]["value"] for row in weakest} == {0.0}
    aucs = [f"{row['detection']['zmask']['auc']['value']:.3f}" for row in weakest]
    quality = [f"{row['miou']['zmask']['value']:.3f}" for row in weakest]
    text = " ".join(PAGE.split())
    assert f"{aucs[0]} with ICNet, {aucs[1]} with DDRNet, {aucs[2]} with BiSeNet" in text
    assert f"(mIoU defended {', '.join(quality)})" in text
