"""Memory and a stream of one NVIDIA GPU, through the ``cuda-bindings`` package."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from zmask_export.errors import BackendError, BackendUnavailableError


def runtime() -> ModuleType:
    """CUDA's runtime as a Python module.

    Raises:
        BackendUnavailableError: the package is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as exc:
        raise BackendUnavailableError(
            f"The package cuda-bindings cannot be imported ({exc}).",
            fix="Install it (pip install 'zmask-export[rtx]' or 'zmask-export[tensorrt]').",
        ) from exc


class CudaDevice:
    """A stream and named buffers that grow as needed. Not for several threads at once.

    Args:
        number: which GPU.

    Raises:
        BackendUnavailableError: cuda-bindings is not installed.
        BackendError: CUDA fails.
    """

    def __init__(self, number: int = 0) -> None:
        self._cuda = runtime()
        self._number = number
        self._buffers: dict[str, tuple[int, int]] = {}
        with self.current():
            # Not a non-blocking one: it waits for what other libraries queued on the default stream.
            self._stream = self._call("cudaStreamCreate")

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this GPU the calling thread's, and give it back the one it had."""
        before = self._call("cudaGetDevice")
        self._call("cudaSetDevice", self._number)
        try:
            yield
        finally:
            self._call("cudaSetDevice", before)

    def room(self, name: str, size: int) -> int:
        """Address of a buffer of at least ``size`` bytes; the same one for the same name."""
        address, have = self._buffers.get(name, (0, 0))
        if have >= max(size, 1):
            return address
        if have:
            del self._buffers[name]
            self._call("cudaFree", address)
        address = int(self._call("cudaMalloc", max(size, 1)))
        self._buffers[name] = (address, max(size, 1))
        return address

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue a copy of a contiguous array, which must live until :meth:`wait`."""
        self._copy(address, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def download(self, array: NDArray[Any], address: int) -> None:
        """Queue a copy into a contiguous array, which holds it after :meth:`wait`."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost")

    def move(self, address: int, source: int, size: int) -> None:
        """Queue a copy of ``size`` bytes from one place on the GPU to another."""
        self._copy(address, source, size, "cudaMemcpyDeviceToDevice")

    def _copy(self, target: int, source: int, size: int, way: str) -> None:
        kind = getattr(self._cuda.cudaMemcpyKind, way)
        if size:
            self._call("cudaMemcpyAsync", target, source, size, kind, self._stream)

    def wait(self) -> None:
        """Return when everything that was queued is done."""
        self._call("cudaStreamSynchronize", self._stream)

    def release(self) -> None:
        """Give everything back; what CUDA says of it no longer matters."""
        with contextlib.suppress(BackendError), self.current():
            for address, _ in self._buffers.values():
                self._cuda.cudaFree(address)
            self._buffers.clear()
            self._cuda.cudaStreamDestroy(self._stream)

    def _call(self, name: str, *arguments: object) -> Any:
        """Call a function of CUDA's; its value, where it has one."""
        error, *values = getattr(self._cuda, name)(*arguments)
        codes = self._cuda.cudaError_t
        if error != codes.cudaSuccess:
            full = error == codes.cudaErrorMemoryAllocation
            said = self._cuda.cudaGetErrorString(error)[1].decode("utf-8", "replace")
            raise BackendError(
                f"CUDA fails in {name} ({said}).",
                fix="Give a smaller batch, or free memory of the GPU."
                if full
                else "Look at nvidia-smi, and that the driver fits cuda-bindings.",
            )
        return values[0] if values else None
