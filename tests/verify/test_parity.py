from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.small import (
    as_float,
    exported,
    fresh,
    random_calibration,
    split_flags,
    tiny_bare,
    tiny_defense,
    tiny_images,
)
from zmask_export.artifacts.calibration import Calibration
from zmask_export.backends.onnx_runtime import OnnxRuntimeRunner
from zmask_export.backends.runner import Arrays
from zmask_export.data.images import to_float
from zmask_export.defense.zmask import ZMask
from zmask_export.errors import ParityError
from zmask_export.fuse.emit import FuseOptions, fuse
from zmask_export.spec import Policy, Tolerances
from zmask_export.verify.parity import ParityReport, compare, reference_outputs, verify

BARE = tiny_bare()
PIXELS = tiny_images()
IMAGES = [(f"image {index}", pixels) for index, pixels in enumerate(PIXELS)]
LIMITS = Tolerances(
    logits_atol=1e-3,
    logits_rtol=1e-3,
    logits_outliers=0.001,
    score_rtol=1e-4,
    mask_iou=0.999,
    heatmap_rtol=1e-4,
)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    plain = random_calibration(BARE, tiny_defense())
    return split_flags(BARE, plain, torch.from_numpy(as_float(PIXELS)))


def runner(calibration: Calibration, policy: Policy = Policy.GATED, seed: int = 0):
    model = fuse(fresh(exported(None, seed)), calibration, FuseOptions(policy)).to_bytes()
    return OnnxRuntimeRunner(model, threads=1)


def report(
    calibration: Calibration, graph: OnnxRuntimeRunner, policy: Policy = Policy.GATED
) -> ParityReport:
    return verify(ZMask(BARE, calibration, policy), graph, IMAGES, LIMITS)


@pytest.fixture(scope="module")
def expected(calibration: Calibration) -> Arrays:
    """The reference's outputs for a flagged image."""
    reference = ZMask(BARE, calibration)
    with torch.inference_mode():
        seen = [reference.observe(torch.from_numpy(to_float([pixels]))) for pixels in PIXELS]
    outputs = [reference_outputs(reference, first) for first in seen]
    return next(output for output in outputs if output["flag"][0])


@pytest.mark.parametrize("policy", list(Policy))
def test_true_graph_passes(calibration: Calibration, policy: Policy) -> None:
    result = report(calibration, runner(calibration, policy), policy)
    assert result.problems == []
    result.require()
    assert result.policy == policy.value
    assert result.runner.startswith("onnxruntime-")
    assert [c.batch for c in result.comparisons] == [1, 1, 1, 1, 4, 4, 4, 4]
    assert {c.flag for c in result.comparisons} == {True, False}
    assert all(c.flag == c.flag_reference for c in result.comparisons)
    assert result.threshold == pytest.approx(calibration.header.threshold)


def test_progress_counts_the_images(calibration: Calibration) -> None:
    seen: list[int] = []
    reference = ZMask(BARE, calibration, Policy.DETECT)
    graph = runner(calibration, Policy.DETECT)
    verify(reference, graph, IMAGES[:3], LIMITS, batches=(2,), on_image=seen.append)
    assert seen == [1, 2, 3]


def test_last_batch_wraps_around(calibration: Calibration) -> None:
    reference = ZMask(BARE, calibration, Policy.DETECT)
    graph = runner(calibration, Policy.DETECT)
    result = verify(reference, graph, IMAGES[:3], LIMITS, batches=(2,))
    assert [c.image for c in result.comparisons] == ["image 0", "image 1", "image 2", "image 0"]


def changed(calibration: Calibration, what: str) -> Calibration:
    if what == "std":
        return replace(calibration, std={t: v * 1.01 for t, v in calibration.std.items()})
    if what == "mean":
        return replace(calibration, mean={t: v + 0.01 for t, v in calibration.mean.items()})
    if what == "registration":
        return calibration.with_header(defense=tiny_defense("paper"))
    assert calibration.fusion is not None
    return replace(calibration, fusion=calibration.fusion + np.float32(0.02))


@pytest.mark.parametrize("what", ["std", "mean", "registration", "fusion"])
def test_graph_of_another_calibration_is_caught(calibration: Calibration, what: str) -> None:
    result = report(calibration, runner(changed(calibration, what)))
    assert any("score" in problem for problem in result.problems)
    with pytest.raises(ParityError, match="differs from the reference") as caught:
        result.require()
    assert caught.value.exit_code == 3
    assert "image 0 (batch 1)" in caught.value.what


def test_graph_of_another_policy_is_caught(calibration: Calibration) -> None:
    problems = report(calibration, runner(calibration, Policy.DETECT)).problems
    assert problems
    assert all("of the outputs off" in problem for problem in problems)


def test_graph_of_another_fill_is_caught(calibration: Calibration) -> None:
    filled = calibration.with_header(defense=tiny_defense(fill="mean"))
    assert any("outputs off" in problem for problem in report(calibration, runner(filled)).problems)


def test_graph_of_other_weights_is_caught(calibration: Calibration) -> None:
    result = report(calibration, runner(calibration, seed=1))
    assert {c.image for c in result.comparisons if c.problems} == {name for name, _ in IMAGES}


@pytest.mark.parametrize("threshold", [0.0, 1e6])
def test_both_decisions_are_compared_whatever_the_threshold(
    calibration: Calibration, threshold: float
) -> None:
    one_sided = calibration.with_header(threshold=threshold)
    result = report(one_sided, runner(one_sided))
    assert result.problems == []
    assert len(result.comparisons) == 16
    calibrated, forced = result.comparisons[:8], result.comparisons[8:]
    assert {c.flag for c in calibrated} == {threshold == 0}
    assert {c.flag for c in forced} == {threshold > 0}
    assert all(", threshold " in c.image for c in forced)


def test_a_graph_that_never_covers_is_caught_where_nothing_is_flagged(
    calibration: Calibration,
) -> None:
    never = calibration.with_header(threshold=1e6)
    problems = report(never, runner(never, Policy.DETECT)).problems
    assert problems
    assert all("threshold 0" in problem and "outputs off" in problem for problem in problems)


def compared(expected: Arrays, threshold: float, **actual: object):
    """The reference against itself with some outputs replaced."""
    return compare("image", 1, expected, expected | actual, threshold, LIMITS)


def test_equal_outputs_are_equal(expected: Arrays) -> None:
    result = compared(expected, 1.0)
    assert result.problems == ()
    assert result.mask_iou == 1.0
    assert result.output_error == result.heatmap_error == result.score_error == 0.0


def test_flag_may_differ_inside_the_band(expected: Arrays) -> None:
    threshold = float(expected["score"][0]) * (1 - 5e-5)
    other = {
        "flag": ~expected["flag"],
        "mask": np.ones_like(expected["mask"]),
        "logits": expected["logits"] + 1,
    }
    result = compared(expected, threshold, **other)
    assert result.margin < LIMITS.score_rtol
    assert result.problems == ()


def test_flag_may_not_differ_outside_the_band(expected: Arrays) -> None:
    threshold = float(expected["score"][0]) * (1 - 5e-4)
    result = compared(expected, threshold, flag=~expected["flag"])
    assert len(result.problems) == 1
    assert result.problems[0].startswith("flag False against True at a margin")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("logits", "of the outputs off"),
        ("score", "score nan"),
        ("heatmap_shallow", "heatmap off"),
        ("heatmap.deep.tip", "heatmap off"),
    ],
)
def test_nan_is_a_problem(expected: Arrays, name: str, problem: str) -> None:
    result = compared(expected, 1.0, **{name: np.full_like(expected[name], np.nan)})
    assert any(problem in text for text in result.problems)


def test_error_of_a_value_that_is_not_finite_is_infinite(expected: Arrays) -> None:
    logits = expected["logits"].copy()
    logits.flat[0] = np.nan
    assert compared(expected, 1.0, logits=logits).output_error == np.inf


def test_one_nan_in_a_heatmap_is_a_problem(expected: Arrays) -> None:
    broken = expected["heatmap_deep"].copy()
    broken[0, 0, 3, 3] = np.nan
    assert compared(expected, 1.0, heatmap_deep=broken).problems


def test_other_mask_is_a_problem(expected: Arrays) -> None:
    result = compared(expected, 1.0, mask=np.ones_like(expected["mask"]))
    assert result.mask_iou == 0.0
    assert result.problems == ("mask IoU 0.00000",)


def test_few_outliers_are_tolerated_and_more_are_not(expected: Arrays) -> None:
    logits = expected["logits"].copy()
    allowed = int(logits.size * LIMITS.logits_outliers)
    assert allowed >= 1
    logits.flat[:allowed] += 1
    assert compared(expected, 1.0, logits=logits).problems == ()
    logits.flat[: allowed + 1] += 1
    assert "of the outputs off" in compared(expected, 1.0, logits=logits).problems[0]
    assert compared(expected, 1.0, logits=logits).output_error == pytest.approx(2)


def test_error_names_three_problems_and_counts_the_rest(calibration: Calibration) -> None:
    result = report(calibration, runner(changed(calibration, "mean")))
    more = len(result.problems) - 3
    with pytest.raises(ParityError, match=f"and {more} more"):
        result.require()
