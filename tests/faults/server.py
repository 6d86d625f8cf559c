"""Forks the command line from a process that has imported it: a verb starts in milliseconds.

A request is one JSON line; answered are two: the process, as it starts, and how it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import traceback
from typing import Any

VERBS = ("build", "calibrate", "craft", "evaluate", "fit", "inspect", "monitor", "profile", "run")
LATE = (
    "matplotlib.pyplot",
    "onnxruntime",
    "onnxscript",
    "torch.onnx",
    "zmask_export.cli.console",
    "zmask_export.runtime.protected",
)
"""What verbs import as they go."""


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def _mapped() -> int:
    """Bytes that this process has mapped."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _run(request: dict[str, Any]) -> None:
    from zmask_export.cli.main import main

    for number, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(request[name], flags, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    exec(request["hook"], {})  # noqa: S102
    if request["files"] is not None:
        _limit(resource.RLIMIT_NOFILE, request["files"])
    if request["memory"] is not None:
        _limit(resource.RLIMIT_AS, _mapped() + request["memory"])
    code: object = 1
    try:
        main(request["arguments"])
    except SystemExit as exc:
        code = exc.code
    except BaseException:
        traceback.print_exc()
    # What the imports of this process left running waits for threads that no fork has.
    os._exit(code if isinstance(code, int) else 0)


def serve() -> None:
    """Answer requests until standard input ends."""
    for name in (
        *(f"zmask_export.{room}.{verb}" for room in ("cli", "pipeline") for verb in VERBS),
        *LATE,
    ):
        importlib.import_module(name)
    said = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            said.close()
            _run(request)
        print(pid, file=said, flush=True)
        status = os.waitpid(pid, 0)[1]
        print(os.waitstatus_to_exitcode(status), file=said, flush=True)


if __name__ == "__main__":
    serve()
