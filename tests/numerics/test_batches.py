"""No result of an image depends on what stands beside it: to the last bit in ONNX Runtime's CPU."""

from __future__ import annotations

import numpy as np
import pytest

from tests.numerics.networks import IMAGES, named
from zmask_export.spec import Policy, Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("policy", list(Policy))
def test_an_image_alone_and_in_a_batch_gives_the_same_bits(
    policy: Policy, precision: Precision
) -> None:
    made = named("maximum pooling")
    runner = made.runner(policy, precision)
    beside = np.stack([IMAGES[3], IMAGES[1], IMAGES[0], IMAGES[2], IMAGES[1]])
    beside[-1, 0, 4, 4] = np.nan
    whole = made.run(runner, IMAGES)
    assert 0 < whole["flag"].sum() < len(IMAGES)
    other = made.run(runner, beside)
    for index, place in enumerate((2, 1, 3, 0)):
        alone = made.run(runner, IMAGES[index : index + 1])
        for name, value in alone.items():
            np.testing.assert_array_equal(whole[name][index], value[0], err_msg=name)
            np.testing.assert_array_equal(other[name][place], value[0], err_msg=name)


def test_two_runs_give_the_same_bits() -> None:
    made = named("ReLU")
    one, other = (made.run(made.runner(Policy.GATED), IMAGES) for _ in range(2))
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)
