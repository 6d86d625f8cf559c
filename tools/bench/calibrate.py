"""Throughput of calibration against a bare forward loop over the same images.

    python tools/bench/calibrate.py --images DIR --rounds 5

Both sides decode the same files and run the same network; they take turns, so that a machine that
changes its speed changes it for both. Prints as JSON the medians and quartiles, the ratio (calibration over
bare, 1 = as fast), the machine and the commit.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import torch
from measuring.machine import describe

from zmask_export.calibrate.statistics import measure
from zmask_export.data.images import ImageFolder, to_float
from zmask_export.pipeline.network import NetworkOptions, OpenNetwork, open_network
from zmask_export.profiling.timing import ratio, spread


def bare_loop(opened: OpenNetwork, folder: ImageFolder, batch: int) -> float:
    """Images a second of decode and forward alone."""
    bare = opened.bare()
    started = time.perf_counter()
    group = []
    for index, frame in enumerate(folder.frames()):
        if frame is not None:
            group.append(frame.image)
        if len(group) == batch or index + 1 == len(folder):
            with torch.inference_mode():
                bare.predict(torch.from_numpy(to_float(group)))
            group = []
    return len(folder) / (time.perf_counter() - started)


def calibration_loop(opened: OpenNetwork, folder: ImageFolder, batch: int) -> float:
    """Images a second of the whole calibration pass."""
    started = time.perf_counter()
    measure(opened.bare(), folder, batch=batch)
    return len(folder) / (time.perf_counter() - started)


@click.command(context_settings={"show_default": True})
@click.option("--images", type=click.Path(path_type=Path), required=True)
@click.option("--model", default="icnet")
@click.option("--limit", default=80, help="Images a round.")
@click.option("--batch", default=4)
@click.option("--rounds", default=5)
def main(images: Path, model: str, limit: int, batch: int, rounds: int) -> None:
    """Take turns and print the record as JSON."""
    opened = open_network(NetworkOptions(model))
    folder = ImageFolder(images, opened.input_size, limit=limit)
    bare_loop(opened, folder, batch)
    bare, calibration = [], []
    for _ in range(rounds):
        bare.append(bare_loop(opened, folder, batch))
        calibration.append(calibration_loop(opened, folder, batch))
    record = {
        "bare_images_per_s": spread(bare).model_dump(),
        "calibration_images_per_s": spread(calibration).model_dump(),
        "ratio": ratio(calibration, bare).model_dump(),
        "images": len(folder),
        "batch": batch,
        "machine": describe(torch.get_num_threads()).model_dump(),
    }
    click.echo(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
