"""One fuzzer: libFuzzer drives a reader. Started by run.py; what libFuzzer itself takes comes last.

    python tools/fuzz/harness.py READER SCRATCH FINDS SECONDS [options of libFuzzer] CORPUS

An exception that is not ours is written to FINDS, once a place that raises it, and the run goes on
until it has taken SECONDS of a processor.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import atheris

INSTRUMENTED = ["zmask_export", "PIL", "yaml", "fuzzing"]

with atheris.instrument_imports(include=INSTRUMENTED):
    # Before others import it.
    import yaml  # noqa: F401
    from fuzzing.readers import accepts


def main() -> None:
    """Run until libFuzzer ends the process."""
    reader, scratch, finds = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    most_s = float(sys.argv[4])
    logging.disable(logging.CRITICAL)
    seen: set[str] = set()

    def one(data: bytes) -> None:
        if time.process_time() > most_s:
            os.kill(os.getpid(), signal.SIGUSR1)  # libFuzzer ends and says what it did
        try:
            accepts(reader, data, scratch)
        except Exception as exc:
            last = traceback.extract_tb(exc.__traceback__)[-1]
            place = f"{type(exc).__name__} {last.filename}:{last.lineno}"
            if place not in seen:
                seen.add(place)
                name = hashlib.sha256(data).hexdigest()[:12]
                (finds / name).write_bytes(data)
                (finds / f"{name}.txt").write_text("".join(traceback.format_exception(exc)))

    atheris.Setup([sys.argv[0], *sys.argv[5:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
