"""profile: what a bundle costs on this machine, part by part, beside the network alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from zmask_export import __version__
from zmask_export.artifacts.manifest import Manifest
from zmask_export.artifacts.scratch import scratch
from zmask_export.backends.runner import cores
from zmask_export.data import images
from zmask_export.data.images import OnBad
from zmask_export.errors import UsageError
from zmask_export.pipeline.profile_frames import Frames, choose_frames
from zmask_export.pipeline.profile_runs import Work
from zmask_export.pipeline.progress import Reporter, Silent
from zmask_export.profiling import memory
from zmask_export.profiling.machine import describe, versions
from zmask_export.profiling.record import (
    CaseName,
    FrameInfo,
    LatencyReport,
    Memory,
)
from zmask_export.profiling.sessions import Device, devices
from zmask_export.runtime.choice import ONNX_FILE
from zmask_export.runtime.protected import Protected, Result, load_checked

BATCHES = (1, 4)
"""Batch sizes where the graph takes any."""
SECONDS = 25.0
"""To measure times in; what comes before and after is beside it."""
MOST_FRAMES = 8
"""Different images of a kind; larger batches repeat them."""
_PROFILED_SHARE = 0.25


@dataclass(frozen=True)
class ProfileOptions:
    """What to measure on.

    Attributes:
        images: clean frames, files or folders; drawn streets where empty.
        attacked: attacked frames; the clean ones, made to act, where empty.
        batches: images a run; empty takes the graph's fixed batch, or 1 and 4.
        seconds: to measure times in.
        threads: CPU threads; 0: one a core.
        device: where the graph runs; None takes a GPU where there is one.
        on_bad: what to do with images that are no 8-bit RGB.
        verify_key: public key that the bundle must be signed with.
    """

    images: tuple[Path, ...] = ()
    attacked: tuple[Path, ...] = ()
    batches: tuple[int, ...] = ()
    seconds: float = SECONDS
    threads: int = 0
    device: Device | None = None
    on_bad: OnBad = "error"
    verify_key: Path | None = None


@dataclass(frozen=True)
class Example:
    """One frame and what the engine says of it at the calibrated threshold."""

    frames: Frames
    result: Result


@dataclass(frozen=True)
class Profile:
    """What was measured, and an example of either kind of frame."""

    manifest: Manifest
    report: LatencyReport
    examples: tuple[Example, ...]


def profile_bundle(
    bundle: Path, options: ProfileOptions, *, reporter: Reporter | None = None
) -> Profile:
    """Measure a bundle.

    Raises:
        BundleError: no bundle, one that was changed, not signed with the key, or a graph of another
            program.
        UsageError: a batch that the graph does not take, a device that is not here, or bfloat16 on a CPU.
        ImageError, DatasetError: the images cannot be used.
        BackendError: a run failed.
    """
    began = time.perf_counter()
    engine, checked = load_checked(
        bundle, backend="onnxruntime", threads=options.threads, verify_key=options.verify_key
    )
    batches = _batches(engine.manifest, options.batches)
    device = _device(options.device)
    _require_timeable(engine.manifest, device)
    work = Work(
        graph=checked.read(ONNX_FILE),
        threads=options.threads or cores(),
        device=device,
        frames=choose_frames(
            engine.manifest,
            options.images,
            options.attacked,
            count=min(max(batches), MOST_FRAMES),
            on_bad=options.on_bad,
        ),
        reporter=reporter or Silent(),
    )
    machine = describe(work.threads)
    infos, examples = _look(engine, work.frames)
    manifest = engine.manifest
    del engine
    grown = _memory(work, manifest, batches[-1])
    share = options.seconds * (1 - _PROFILED_SHARE) / len(batches)
    cases = work.time(batches[0], share)
    for batch in batches[1:]:
        # Of a slow network one round of many images has to do.
        cases += work.time(batch, share, at_least=1)
    parts = work.attribute(batches[0], options.seconds * _PROFILED_SHARE)
    if device != "cpu":
        work.left_out.append(
            "Parts and memory on a GPU: ONNX Runtime's profile has its launches only. The CPU's are given."
        )
    report = LatencyReport(
        tool_version=__version__,
        name=manifest.name,
        model=manifest.model,
        policy=manifest.policy,
        graph_sha256=manifest.files[ONNX_FILE].sha256,
        input_size=manifest.input_size,
        runner=f"onnxruntime-{device}",
        machine=machine,
        versions=versions(),
        seconds=time.perf_counter() - began,
        frames=infos,
        cases=tuple(cases),
        parts=parts,
        memory=grown,
        engines=manifest.engines,
        left_out=tuple(work.left_out),
    )
    return Profile(manifest, report, examples)


def _batches(manifest: Manifest, wanted: tuple[int, ...]) -> tuple[int, ...]:
    fixed = manifest.batch
    if fixed is None:
        return tuple(sorted(set(wanted or BATCHES)))
    if set(wanted) - {fixed}:
        raise UsageError(
            f"The bundle takes batches of {fixed} only.", fix=f"Leave out --batch, or give {fixed}."
        )
    return (fixed,)


def _device(wanted: Device | None) -> Device:
    found, reason = devices()
    if wanted is not None and wanted not in found:
        raise UsageError(f"There is no {wanted} here: {reason}", fix="Leave out --device.")
    return wanted or found[-1]


def _require_timeable(manifest: Manifest, device: Device) -> None:
    # What runs in its place there rounds at every operator: right in value, meaningless in time.
    if manifest.precision == "bf16" and device == "cpu":
        raise UsageError(
            "ONNX Runtime has no bfloat16 convolutions on a CPU, so there is nothing to time.",
            fix="Profile on a machine with a GPU, or a bundle of another precision.",
        )


def _look(
    engine: Protected, kinds: tuple[Frames, Frames]
) -> tuple[tuple[FrameInfo, ...], tuple[Example, ...]]:
    """What the engine says of the frames at the calibrated threshold."""
    infos, examples = [], []
    for frames in kinds:
        results = [engine.run(images.to_float([picture]))[0] for picture in frames.pictures]
        infos.append(
            FrameInfo(
                frame=frames.kind,
                about=frames.about,
                threshold=frames.limit,
                images=frames.names,
                flagged=sum(result.flag for result in results) / len(results),
            )
        )
        examples.append(Example(frames, results[0]))
    return tuple(infos), tuple(examples)


def _memory(work: Work, manifest: Manifest, batch: int) -> tuple[Memory, ...]:
    """Of the largest batch, with the branch that needs more."""
    found = []
    with scratch("profile") as folder:
        # Copies of what was checked, not the bundle's own file, which may have changed since.
        alone, graph = folder / "bare.onnx", folder / ONNX_FILE
        alone.write_bytes(work.bare)
        graph.write_bytes(work.graph)
        cases: tuple[tuple[CaseName, Path, float | None], ...] = (
            ("bare", alone, None),
            ("protected", graph, 0.0),
        )
        with work.reporter.bar("memory", len(cases)) as advance:
            for done, (case, model, threshold) in enumerate(cases, 1):
                grown = memory.growth(
                    model,
                    manifest.input_size,
                    batch=batch,
                    threads=work.threads,
                    threshold=threshold,
                )
                if grown is not None:
                    found.append(Memory(case=case, batch=batch, growth=grown))
                advance(done)
    if not found:
        work.left_out.append("Resident memory: this system does not say.")
    return tuple(found)
