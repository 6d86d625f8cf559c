"""One run: every section that was asked for, and what has to be left out."""

from __future__ import annotations

from dataclasses import dataclass, field

import click
import torch
from measuring.machine import describe

from overhead.bars import bars_of
from overhead.cascade import compare
from overhead.cases import Cases, onnxruntime_cases, time_cases
from overhead.engines import POLICIES, Engines, compile_engines, engine_cases, memory_of, why_not
from overhead.floor import SMALL, Work, measure_floor
from overhead.graphs import Graphs
from overhead.parts import profile
from overhead.pytorch import Form, pytorch_cases, pytorch_devices
from overhead.record import Cascade, EngineMemory, LeftOut, Parts, Record, Timing
from overhead.scaling import curves
from zmask_export.backends import tensorrt
from zmask_export.backends.tensorrt import Flavour
from zmask_export.errors import BackendError, ParityError
from zmask_export.profiling.frames import FRAMES, Frame
from zmask_export.profiling.sessions import Device, devices
from zmask_export.spec import Policy

SECTIONS = {
    "policies": "bare and every policy in ONNX Runtime",
    "pytorch": "the same in PyTorch",
    "compile": "the same with the network under torch.compile",
    "engines": "the same as TensorRT engines, on a GPU",
    "parts": "where the time goes",
    "literal": "the cascade as Eq. 3 is written beside the deployed one",
    "floor": "what the machine sets the deployed cascade",
    "memory": "what engines need",
    "scaling": "growth over resolution, channels and taps",
}
"""Name to what it measures; sections that stand above ``parts`` take turns with each other."""
FLAVOURS: tuple[Flavour, ...] = ("tensorrt-rtx", "tensorrt")
MOST_PROFILED = 5
"""Rounds of a profile, whose mean is taken."""
QUICK_TAPS = 2
"""Taps of the literal cascade in a quick run: those with the fewest channels."""
QUICK_POLICIES = (Policy.DETECT,)
"""Policies that a quick run compiles."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        rounds: of every turn, after a warm-up.
        literal_rounds: of the literal cascade, which may take minutes.
        batches: images a run.
        threads: of every runner.
        sections: what to measure.
        quick: a little of everything, to see that it is in place.
    """

    rounds: int
    literal_rounds: int
    batches: tuple[int, ...]
    threads: int
    sections: frozenset[str]
    quick: bool


@dataclass
class Bench:
    """One run over one network's graphs, and what it has to leave out."""

    graphs: Graphs
    settings: Settings
    left_out: list[LeftOut] = field(default_factory=list)

    def wants(self, *sections: str) -> bool:
        """Whether one of some sections is asked for."""
        return not self.settings.sections.isdisjoint(sections)

    def leave_out(self, what: str, reason: str | None) -> None:
        """Note once what is not measured; nothing where there is no reason."""
        note = None if reason is None else LeftOut(what=what, reason=reason)
        if note is not None and note not in self.left_out:
            self.left_out.append(note)

    def engines(self, batch: int) -> list[Engines]:
        """The engines of every flavour that compiles here."""
        found = []
        policies = QUICK_POLICIES if self.settings.quick else POLICIES
        for flavour in FLAVOURS:
            reason = tensorrt.available(flavour)
            if reason is None:
                _say(f"compiling {flavour} engines, batch {batch}")
                try:
                    found.append(compile_engines(self.graphs, flavour, batch, policies))
                    if self.settings.quick:
                        self.leave_out("gated engines", "A quick run compiles bare and detect.")
                except (BackendError, ParityError) as exc:
                    reason = exc.what
            self.leave_out(f"{flavour} engines", reason)
        return found

    def timings(self, batch: int, engines: list[Engines]) -> list[Timing]:
        """Every runner's cases, in turns."""
        cases: Cases = {}
        if self.wants("policies"):
            found, reason = devices()
            self.leave_out("ONNX Runtime on CUDA", reason)
            for device in found:
                cases |= onnxruntime_cases(self.graphs, batch, device, self.settings.threads)
        if self.wants("pytorch", "compile"):
            found, reason = pytorch_devices()
            self.leave_out("PyTorch on CUDA", reason)
            for device in found:
                cases |= self._pytorch(batch, device)
        for compiled in engines if self.wants("engines") else ():
            cases |= self._engine_cases(batch, compiled)
        _say(f"timing {len(cases)} cases, batch {batch}")
        return time_cases(cases, batch, self.settings.rounds)

    def _pytorch(self, batch: int, device: Device) -> Cases:
        cases: Cases = {}
        forms: dict[str, Form] = {"pytorch": "pytorch", "compile": "pytorch-compile"}
        for section, form in forms.items():
            if not self.wants(section):
                continue
            if section == "compile" and self.settings.quick:
                self.leave_out("torch.compile", "A quick run does not compile.")
                continue
            _say(f"{form} on {device}, batch {batch}")
            found, reason = pytorch_cases(self.graphs, batch, device, form)
            self.leave_out(f"{form} on {device}", reason)
            cases |= found
        return cases

    def _engine_cases(self, batch: int, compiled: Engines) -> Cases:
        flavour = compiled["bare"].flavour
        cases: Cases = {}
        reason = why_not(flavour)
        if reason is None:
            try:
                cases = engine_cases(self.graphs, compiled, batch)
            except BackendError as exc:
                reason = exc.what
        self.leave_out(f"running {flavour} engines", reason)
        return cases

    def parts(self, batch: int) -> list[Parts]:
        """Profiles of the bare network and every policy."""
        _say(f"profiling, batch {batch}")
        images = self.graphs.images(batch)
        runs: list[tuple[str, Frame | None, bytes]] = [("bare", None, self.graphs.bare)]
        for policy, model in self.graphs.protected.items():
            runs += [(policy.value, frame, model) for frame in FRAMES]
        threads, rounds = self.settings.threads, min(self.settings.rounds, MOST_PROFILED)
        return [
            profile(model, images, case=case, frame=frame, threads=threads, rounds=rounds)
            for case, frame, model in runs
        ]

    def literal(self) -> Cascade:
        """The cascade stage, as written and as deployed."""
        _say("cascade stage, literal and deployed")
        plans = self.graphs.plans
        if self.settings.quick:
            plans = tuple(sorted(plans, key=lambda plan: plan.shape[0])[:QUICK_TAPS])
            reason = f"A quick run takes the {QUICK_TAPS} with the fewest channels."
            self.leave_out("the other taps' literal cascades", reason)
        return compare(self.graphs, plans, self.settings.literal_rounds, self.settings.threads)


def measure(graphs: Graphs, settings: Settings, *, preset: str) -> Record:
    """Everything that the settings ask for.

    Raises:
        ZMaskError: of the step that failed.
    """
    bench = Bench(graphs, settings)
    rounds, threads, quick = settings.rounds, settings.threads, settings.quick
    machine = describe(threads)
    torch.set_num_threads(threads)
    timings: list[Timing] = []
    parts: list[Parts] = []
    memory: list[EngineMemory] = []
    cascade = floor = None
    for batch in settings.batches:
        engines = bench.engines(batch) if bench.wants("memory", "engines") else []
        memory += [found for compiled in engines for found in memory_of(compiled, batch)]
        if bench.wants("policies", "pytorch", "compile", "engines"):
            timings += bench.timings(batch, engines)
        parts += bench.parts(batch) if bench.wants("parts") else []
    if bench.wants("literal"):
        cascade = bench.literal()
    if bench.wants("floor"):
        _say("floor")
        floor = measure_floor(graphs, SMALL if quick else Work(), rounds, threads)
    scaling = []
    if bench.wants("scaling"):
        _say("scaling")
        scaling = curves(graphs, rounds, threads, quick=quick)
        if quick:
            bench.leave_out("growth over resolution", "A quick run exports one size.")
    opened, defense = graphs.opened, graphs.calibration.header.defense
    stated = opened.preset.input_size
    if opened.input_size != stated:
        bench.leave_out("bars", f"They are for the preset's own input, {stated[0]} x {stated[1]}.")
    record = Record(
        model=opened.entry.name,
        preset=preset,
        weights=opened.weights_sha256[:12],
        input_size=opened.input_size,
        grid=defense.grid,
        registration=defense.registration,
        taps=defense.taps,
        quick=quick,
        machine=machine,
        timings=tuple(timings),
        parts=tuple(parts),
        cascade=cascade,
        floor=floor,
        memory=tuple(memory),
        scaling=tuple(scaling),
        left_out=tuple(bench.left_out),
    )
    bars = bars_of(record) if opened.input_size == stated else []
    return record.model_copy(update={"bars": tuple(bars)})


def _say(text: str) -> None:
    click.echo(text, err=True)
