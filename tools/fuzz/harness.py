"""One fuzzer: libFuzzer drives a reader. Started by run.py; options of libFuzzer follow the three names.

    python tools/fuzz/harness.py READER SCRATCH FINDS [options of libFuzzer] CORPUS

An exception that is not ours is written to FINDS, once a place that raises it, and the run goes on.
"""

from __future__ import annotations

import hashlib
import logging
import sys
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
    logging.disable(logging.CRITICAL)
    seen: set[str] = set()

    def one(data: bytes) -> None:
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

    atheris.Setup([sys.argv[0], *sys.argv[4:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
