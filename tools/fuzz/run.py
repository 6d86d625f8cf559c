"""Fuzz a reader for some time of a processor, and say what came of it.

    python tools/fuzz/run.py --reader manifest --seconds 600 --json
    python tools/fuzz/run.py --reader all --seconds 600 --finds found/

Needs the extra ``fuzz``. The seeds are tests/fuzz/corpus/READER; what the run adds to them is thrown away.
Exit code 1 where something was found: an exception that is not ours, an input that takes too long or too
much memory. What caused it lies in --finds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzzing.readers import READERS

CORPUS = Path(__file__).parents[2] / "tests" / "fuzz" / "corpus"
SLOWEST_S = 10
"""An input that takes longer is a find."""
MOST_MIB = 2048
"""So is one for which the process needs more memory."""
MOST_BYTES = 16384
"""Longest input that is tried."""


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        reader: which.
        seconds: how long it ran, its start included; an input over a bound ends it early.
        cpu_s: processor time it took, its start included.
        executions: inputs that were tried.
        coverage: edges of instrumented code that were reached.
        features: the same with counts of passes, as libFuzzer tells them apart.
        corpus: inputs that reached something new, seeds included.
        finds: exceptions that are not ours, each place that raises one once, and inputs over a bound.
        slowest_s: of one input, in whole seconds.
        peak_rss_mib: of the process.
    """

    reader: str
    seconds: int
    cpu_s: int
    executions: int
    coverage: int
    features: int
    corpus: int
    finds: tuple[str, ...]
    slowest_s: int
    peak_rss_mib: int


def fuzz(reader: str, seconds: int, finds: Path, seed: int) -> Outcome:
    """Run one fuzzer."""
    own = finds / reader
    own.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scratch").mkdir()
        shutil.copytree(CORPUS / reader, folder / "corpus")
        harness = Path(__file__).with_name("harness.py")
        command = [
            sys.executable, str(harness), reader, str(folder / "scratch"), str(own), str(seconds),
            f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MIB}",
            f"-max_len={MOST_BYTES}", f"-artifact_prefix={own}/", f"-seed={seed}",
            "-print_final_stats=1", str(folder / "corpus"),
        ]  # fmt: skip
        started, used = time.monotonic(), _children_s()
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        took = round(time.monotonic() - started)
        return _outcome(reader, took, round(_children_s() - used), done.stderr, own)


def _children_s() -> float:
    """Processor time of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _outcome(reader: str, seconds: int, cpu_s: int, said: str, finds: Path) -> Outcome:
    """Read libFuzzer's own figures.

    Raises:
        RuntimeError: it gave none.
    """
    stats = {k: int(v) for k, v in re.findall(r"^stat::(\w+):\s+(\d+)", said, re.MULTILINE)}
    progress = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)
    if not stats or not progress:
        raise RuntimeError(f"the fuzzer of {reader} did not run:\n{said[-2000:]}")
    coverage, features, corpus = (int(value) for value in progress[-1])
    return Outcome(
        reader, seconds, cpu_s, stats["number_of_executed_units"], coverage, features, corpus,
        tuple(sorted(p.name for p in finds.iterdir() if p.suffix != ".txt")),
        stats["slowest_unit_time_sec"], stats["peak_rss_mb"],
    )  # fmt: skip


def main() -> int:
    """Run what was asked for; 1 where something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--reader", choices=[*READERS, "all"], required=True)
    parser.add_argument("--seconds", type=int, default=600, help="of a processor, for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--finds", type=Path, default=Path("finds"), help="folder for inputs that fail"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a reader")
    given = parser.parse_args()
    found = False
    for reader in READERS if given.reader == "all" else (given.reader,):
        outcome = fuzz(reader, given.seconds, given.finds.absolute(), given.seed)
        found |= bool(outcome.finds)
        if given.json:
            print(json.dumps(asdict(outcome)), flush=True)
        else:
            print(
                f"{reader}: {outcome.executions} inputs in {outcome.seconds} s "
                f"({outcome.cpu_s} s of a processor), {outcome.coverage} edges, "
                f"{len(outcome.finds)} finds, slowest {outcome.slowest_s} s, {outcome.peak_rss_mib} MiB",
                flush=True,
            )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
