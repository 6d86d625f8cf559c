from __future__ import annotations

import json
from typing import Any

import pytest

from tests.evaluate.reports import estimate, made_detector, made_network, made_report
from zmask_export.evaluate.report import StudyReport, findings, worst


def finding(lines: list[str], word: str) -> str:
    (line,) = [line for line in lines if word in line]
    return line


def test_rivals_that_do_better_are_named() -> None:
    ahead = finding(list(findings(made_network(lgs=0.575))), "LGS")
    assert ahead == "icnet: Z-Mask has a lower mIoU than LGS under L (0.575 against 0.570)."
    behind = finding(list(findings(made_network())), "LGS")
    assert behind == "icnet: Z-Mask's mIoU is at or above that of MaskNet and LGS under L patches."


def test_weak_patches_are_averaged() -> None:
    line = finding(list(findings(made_network())), "mean AUC")
    # beta 0.2 and 0.6 alone: 0.9 + 0.4 / 7, 0.5 + 0.4 / 3, 0.6 + 0.1
    assert line.startswith("icnet: mean AUC over 2 patches of beta up to 0.7: ")
    assert line.endswith("Z-Mask 0.957, HN 0.633, FPDA 0.700.")


def test_alphas_at_which_the_defense_falls_are_named() -> None:
    held = finding(list(findings(made_network(weak=0.545))), "Adv-Mask")
    assert held.startswith("icnet: at no alpha of Adv-Mask")
    fallen = finding(list(findings(made_network(weak=0.535))), "Adv-Mask")
    assert fallen.endswith(
        "falls more than 0.03 below the plain attack's 0.570 at alpha 0.5 (0.535)."
    )
    below = worst(made_network(weak=0.535))
    assert below is not None
    assert below.value == 0.5
    assert worst(made_network(weak=0.545)) is None
    # Without a patch of alpha 1, the table's L patch is the plain one.
    assert "plain attack's 0.570" in finding(list(findings(made_network())), "Adv-Flag")


def test_without_measurements_nothing_is_claimed() -> None:
    network = made_network()
    bare = network.model_copy(update={"table": network.table[:1], "beta": (), "alpha": {}})
    assert list(findings(bare)) == []


def test_nothing_is_claimed_of_a_number_that_is_not_defined() -> None:
    network = made_network()
    unknown = network.table[1].miou | {"zmask": estimate(None)}
    row = network.table[1].model_copy(update={"miou": unknown})
    aware = {"flag": network.alpha["flag"]}
    changed = {"table": (network.table[0], row), "beta": (), "alpha": aware}
    assert list(findings(network.model_copy(update=changed))) == []


def test_the_report_comes_back_from_its_json() -> None:
    report = made_report()
    assert StudyReport.model_validate_json(report.model_dump_json()) == report


def paths(value: Any, at: str = "") -> set[str]:
    """Every key of a JSON value; names that users or subjects choose stand as ``*``."""
    if isinstance(value, list):
        return set().union(*(paths(item, at) for item in value))
    if not isinstance(value, dict):
        return set()
    chosen = at.endswith(("miou", "map_50", "map_50_95", "detection", "alpha", "roc", "roc.*"))
    found = set()
    for key, item in value.items():
        below = f"{at}.{'*' if chosen else key}".lstrip(".")
        found |= {below} | paths(item, below)
    return found


def test_the_json_has_the_form_that_its_version_says() -> None:
    record = json.loads(made_report().model_dump_json())
    assert record["schema_version"] == 2
    number = {"value", "low", "high", "images"}
    scores = {"auc", "fpr_at_tpr95", "fpr_at_tpr99"}
    estimates = {"flagged", "mask_iou", "covered", "recovered", "miou.*"}
    estimates |= {f"detection.*.{name}" for name in scores}
    row = {"attack", "value", "miou", "map_50", "map_50_95", "detection", "detection.*"} | estimates
    row |= {f"{name}.{part}" for name in estimates for part in number}
    absent = {"left_out", "left_out.what", "left_out.why"}
    network = {
        "name",
        "model",
        "task",
        "source",
        "runner",
        "threshold",
        "input_size",
        "images",
    } | absent
    network |= {"table", "beta", "alpha", "alpha.*", "roc", "roc.*", "roc.*.*"}
    network |= {f"{place}.{name}" for place in ("table", "beta", "alpha.*") for name in row}
    whole = {"schema_version", "tool_version", "about", "dataset", "split", "seed", "resamples"}
    whole |= {"quick", "findings", "networks"} | absent
    assert paths(record) == whole | {f"networks.{name}" for name in network}


def test_the_summary_has_every_row_and_names_what_was_left_out() -> None:
    lines = list(made_report().summary())
    assert lines[1] == "icnet, L: Z-Mask 0.570, MaskNet 0.530, LGS 0.500, none 0.460, oracle 0.580"
    assert "left out: icnet: patch S: patches/S.png is not there" in lines
    assert lines[-1] == "left out: ddrnet: engines/ddrnet is not there"


@pytest.mark.parametrize("name", ["networks", "findings", "left_out"])
def test_a_report_without_a_field_is_refused(name: str) -> None:
    record = json.loads(made_report().model_dump_json())
    del record[name]
    with pytest.raises(ValueError, match=name):
        StudyReport.model_validate(record)


def test_a_detectors_report_speaks_of_map() -> None:
    detector, network = made_detector(), made_network("retinanet")
    said, expected = list(findings(detector)), list(findings(network))
    assert said == [line.replace("mIoU", "mAP@0.5") for line in expected]
    assert said != expected
    lines = list(made_report(detector).summary())
    assert lines[1].startswith("retinanet, L: Z-Mask 0.570, MaskNet 0.530")


def test_a_report_of_the_first_version_is_read() -> None:
    record = json.loads(made_report().model_dump_json())
    record["schema_version"] = 1
    for network in record["networks"]:
        del network["task"]
        series = [row for rows in network["alpha"].values() for row in rows]
        for row in (*network["table"], *network["beta"], *series):
            del row["map_50"], row["map_50_95"]
    assert StudyReport.model_validate(record).networks == made_report().networks
