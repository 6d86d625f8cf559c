"""Under a limit on memory a verb runs in a child, because C libraries end their process without a word.

Where a thread's memory or a buffer is refused, OpenBLAS exits with code 1, glibc with 127, and others
abort or fault. No exception can be caught there: this parent sees it, and says what happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable

from zmask_export.cli.interrupts import SIGNALS
from zmask_export.errors import memory_limit

FAULTS = tuple(
    getattr(signal, name) for name in ("SIGABRT", "SIGSEGV", "SIGBUS") if hasattr(signal, name)
)
"""How a library that gets no memory ends its process, where it does not exit."""

SUPPORTED = hasattr(os, "fork") and hasattr(signal, "sigwaitinfo")
"""Whether this system has what :func:`run_in_child` needs."""

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG

_NEAR = 64 << 20
"""A process that came so close to its limit, in bytes, was refused memory."""


def exhausted() -> bool:
    """Whether this process once had mapped about as much as its limit lets it."""
    limit = memory_limit()
    if limit is None:
        return False
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        peak = next((line.split()[1] for line in file if line.startswith("VmPeak:")), "0")
        return int(peak) << 10 > limit - _NEAR
    return False


def run_in_child(work: Callable[[], int]) -> int | None:
    """Run ``work`` in a fork of this process, which must have no other thread.

    Signals that ask this process to end are handed on; those that a terminal sends reach the child by
    themselves.

    Returns:
        The exit code of ``work``; None where a library ended the child.
    """
    told, tell = os.pipe()
    watched = {*SIGNALS, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        os.close(told)
        with contextlib.suppress(OSError, AttributeError):  # of Linux alone
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = 1
        try:
            code = work()
        except (MemoryError, SystemError):
            os._exit(code)  # too little for the error's own words: the parent has them
        finally:
            os.write(tell, bytes([code]))
        sys.exit(code)
    os.close(tell)
    status = _ended(child, watched)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.set_blocking(told, False)  # a process that the child left behind may hold the other end
    with open(told, "rb", buffering=0) as file:
        for code in file.read(1) or b"":  # None where it would have to wait
            return code
    if status >= 0 or -status in FAULTS:
        return None
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    return 128 - status  # where the signal is blocked or ignored


def _ended(child: int, watched: set[signal.Signals]) -> int:
    """Wait for a child, handing signals on; its exit code, or a signal's number, negative."""
    while True:
        seen = signal.sigwaitinfo(watched)
        if seen.si_signo != signal.SIGCHLD:
            if seen.si_pid:  # the kernel's own, of a terminal, have none
                os.kill(child, seen.si_signo)
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
