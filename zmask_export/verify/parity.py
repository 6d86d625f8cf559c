"""Reference against runner: the parity contract of a build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zmask_export.backends.runner import Arrays, Runner
from zmask_export.data.images import to_float
from zmask_export.defense.zmask import Observation, ZMask
from zmask_export.evaluate.metrics import mask_iou
from zmask_export.runtime.protected import NEVER
from zmask_export.spec import Tolerances
from zmask_export.verify.detections import compare_detections
from zmask_export.verify.report import Comparison, ParityReport

_TINY = float(np.finfo(np.float32).tiny)


def verify(
    reference: ZMask,
    runner: Runner,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    tolerances: Tolerances,
    *,
    batches: Sequence[int] = (1, 4),
    on_image: Callable[[int], None] | None = None,
) -> ParityReport:
    """Run both on the same images, one by one through the reference, in batches through the runner.

    Where the calibrated threshold flags every image or none, all are compared once more at a threshold
    that decides otherwise, so that covering and not covering are both shown equal.

    Args:
        reference: the literal form; its policy must be the graph's.
        runner: what runs the graph.
        images: names and uint8 pixels (H, W, 3) of one size.
        tolerances: the contract.
        batches: batch sizes for the runner; the last batch of a size wraps around.
        on_image: told the number of images that the reference has done.
    """
    threshold = float(reference.get_buffer("threshold"))
    seen, expected = [], []
    for index, (_, image) in enumerate(images):
        with torch.inference_mode():
            seen.append(reference.observe(torch.from_numpy(to_float([image]))))
        expected.append(reference_outputs(reference, seen[-1]))
        if on_image is not None:
            on_image(index + 1)
    comparisons = _in_batches(runner, images, expected, threshold, tolerances, batches)
    decided = {bool(outputs["flag"][0]) for outputs in expected}
    for flag, forcing in ((True, 0.0), (False, NEVER)):
        if flag in decided:
            continue
        again = [(f"{name}, threshold {forcing:g}", image) for name, image in images]
        outputs = [reference_outputs(reference, first, forcing) for first in seen]
        comparisons += _in_batches(runner, again, outputs, forcing, tolerances, batches)
    return ParityReport(
        runner=runner.name,
        policy=reference.policy.value,
        threshold=threshold,
        band=tolerances.score_rtol,
        tolerances=tolerances,
        comparisons=tuple(comparisons),
    )


def _in_batches(
    runner: Runner,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    expected: Sequence[Arrays],
    threshold: float,
    tolerances: Tolerances,
    batches: Sequence[int],
) -> list[Comparison]:
    comparisons = []
    for batch in batches:
        for start in range(0, len(images), batch):
            picked = [(start + k) % len(images) for k in range(batch)]
            got = runner.run(
                {
                    "image": to_float([images[i][1] for i in picked]),
                    "threshold": np.array([threshold], np.float32),
                }
            )
            for row, index in enumerate(picked):
                actual = {name: value[row : row + 1] for name, value in got.items()}
                comparisons.append(
                    compare(images[index][0], batch, expected[index], actual, threshold, tolerances)
                )
    return comparisons


def reference_outputs(
    reference: ZMask, seen: Observation, threshold: float | None = None
) -> Arrays:
    """The reference's outputs for one image, batch dimension kept; see :meth:`ZMask.forward`."""
    limit = None if threshold is None else torch.tensor(threshold)
    with torch.inference_mode():
        outputs = reference.decide(seen, limit)
    return {name: value.numpy() for name, value in outputs.items()}


def compare(
    name: str, batch: int, expected: Arrays, actual: Arrays, threshold: float, limits: Tolerances
) -> Comparison:
    """Compare the outputs of one image and list what breaks the contract."""
    d, d_ref = float(actual["score"][0]), float(expected["score"][0])
    score_error = abs(d - d_ref) / max(abs(d_ref), _TINY)
    margin = abs(d_ref - threshold) / max(threshold, _TINY)
    flag, flag_ref = bool(actual["flag"][0]), bool(expected["flag"][0])
    iou = mask_iou(actual["mask"] < 0.5, expected["mask"] < 0.5)
    heat = max(_relative(actual[key], value) for key, value in expected.items() if "heatmap" in key)
    worst, outliers = _output_error(expected, actual, limits)
    predictions = class_difference(expected, actual)
    problems = []
    if not np.isfinite(d) or score_error > limits.score_rtol:
        problems.append(f"score {d:.6g} against {d_ref:.6g}")
    if flag != flag_ref and margin > limits.score_rtol:
        problems.append(f"flag {flag} against {flag_ref} at a margin of {margin:.2g}")
    if heat > limits.heatmap_rtol:
        problems.append(f"heatmap off by {heat:.2g} of its maximum")
    if flag == flag_ref:
        # Where the flags differ inside the band, mask and prediction differ by design.
        if iou < limits.mask_iou:
            problems.append(f"mask IoU {iou:.5f}")
        if outliers > limits.logits_outliers:
            problems.append(f"{outliers:.2%} of the outputs off, by up to {worst:.2g}")
        if limits.predictions is not None and predictions > limits.predictions:
            problems.append(f"{predictions:.2%} of the pixels of another class")
    return Comparison(
        image=name,
        batch=batch,
        score=d,
        score_reference=d_ref,
        score_error=score_error,
        margin=margin,
        flag=flag,
        flag_reference=flag_ref,
        mask_iou=iou,
        output_error=worst,
        outliers=outliers,
        predictions=predictions,
        heatmap_error=heat,
        problems=tuple(problems),
    )


def class_difference(expected: Arrays, actual: Arrays) -> float:
    """Share of the pixels whose class differs; 0 where pixels have none."""
    if "logits" not in expected:
        return 0.0
    return float((expected["logits"].argmax(1) != actual["logits"].argmax(1)).mean())


_DEFENSE_OUTPUTS = ("mask", "score", "flag", "soft_mask")


def _output_error(expected: Arrays, actual: Arrays, limits: Tolerances) -> tuple[float, float]:
    if "boxes" in expected:
        return compare_detections(expected, actual, limits)
    worst, outliers = 0.0, 0.0
    for name, value in expected.items():
        if name in _DEFENSE_OUTPUTS or "heatmap" in name:
            continue
        error = np.nan_to_num(np.abs(actual[name] - value), nan=np.inf)
        bound = limits.logits_atol + limits.logits_rtol * np.abs(value)
        # A value that is not finite is never within a bound.
        outliers = max(outliers, float((~(error <= bound)).mean()))
        worst = max(worst, float(error.max()))
    return worst, outliers


def _relative(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    largest = float(np.abs(expected).max())
    error = float(np.abs(actual - expected).max())
    if not np.isfinite(error):
        return float("inf")
    return error / largest if largest > 0 else error
