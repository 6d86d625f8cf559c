"""A Ray cluster as a pool of workers: one function over many items, results in the items' order.

Ray is an extra and is imported when a cluster is opened. A worker that dies costs the item it was
working on, which is run again: first by Ray, then by this module, a limited number of times. An error
of this package that is raised in a worker is raised here, as itself.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from zmask_export import __version__
from zmask_export.errors import BackendError, BackendUnavailableError, ZMaskError

LOCAL = "local"
"""Address that starts a Ray of one's own on this machine."""

RETRIES = 2
"""How often Ray runs an item again whose worker died."""
RESUBMISSIONS = 1
"""How often an item is handed to Ray anew after that."""
AHEAD = 2
"""Items a processor that are handed out before the first result is taken."""

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Cluster:
    """An open cluster; made by :func:`connect`."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def map(
        self,
        function: Callable[[Shared, Item], Result],
        shared: Shared,
        items: Sequence[Item],
        *,
        threads: int = 1,
        fix: str,
    ) -> Iterator[Result]:
        """``function(shared, item)`` of every item, in the items' order.

        Args:
            function: of a module that workers can import; without side effects, as it may run again.
            shared: what all items need; sent to a machine once.
            items: small; ``str`` of one names it in an error.
            threads: processors that an item wants; on smaller machines it gets all there are.
            fix: what a user can do where an item keeps killing its worker.

        Raises:
            BackendError: an item lost its worker again and again.
            BackendUnavailableError: workers have no zmask-export, or one of another version.
            ZMaskError: what the function raised.
        """
        ray = self._ray
        # In a list a reference is handed on as it is, and each worker fetches it once.
        box = [ray.put(shared)]
        sizes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        share = int(max(1, min(threads, max(sizes, default=1))))
        task = ray.remote(_call).options(num_cpus=share, max_retries=RETRIES)
        ahead = AHEAD * max(1, int(sum(size // share for size in sizes)))
        waiting = iter(items)
        running: deque[tuple[Item, Any, int]] = deque()

        def submit(item: Item) -> Any:
            return task.remote(__version__, function, box, item)

        # What still runs when this ends early is left to end: Ray's cancel can take this process down,
        # where it meets a task that is just done.
        while True:
            while len(running) < ahead:
                try:
                    item = next(waiting)
                except StopIteration:
                    break
                running.append((item, submit(item), 0))
            if not running:
                return
            item, reference, tried = running[0]
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as exc:
                if isinstance(exc.cause, (ImportError, ray.exceptions.RayError)):
                    raise _foreign(f"cannot load its work ({_short(exc.cause)})") from exc
                # Nothing that a user could have caused: what the worker raised says most.
                raise exc.cause from exc
            except ray.exceptions.RayError as exc:
                if tried == RESUBMISSIONS:
                    runs = (RETRIES + 1) * (RESUBMISSIONS + 1)
                    raise BackendError(
                        f"{item} lost their Ray worker in {runs} of {runs} runs ({_short(exc)}).",
                        fix=fix,
                    ) from exc
                running[0] = (item, submit(item), tried + 1)
                continue
            running.popleft()
            if isinstance(result, ZMaskError):
                raise result
            yield result


@contextlib.contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Open a cluster for the time of a block.

    Args:
        address: :data:`LOCAL` to start one on this machine, "auto" for the one that runs on it, or
            the address of another. A process that has joined one already stays in it.

    Raises:
        BackendUnavailableError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as exc:
        raise BackendUnavailableError(
            f"Ray cannot be imported ({_short(exc)}).",
            fix="pip install 'zmask-export[ray]', or leave out --ray.",
        ) from exc
    if ray.is_initialized():
        yield Cluster(ray)
        return
    # A Ray that is started here tells nobody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError, ImportError, AssertionError) as exc:
        raise BackendUnavailableError(
            f"Ray cannot be used at {address} ({_short(exc)}).",
            fix="Start one with ray start --head, give its address with --ray=ADDRESS, or give --ray "
            "alone for one on this machine.",
        ) from exc
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _call(version: str, function: Callable[[Any, Any], Any], box: list[Any], item: Any) -> Any:
    """In a worker: an error of ours is a result, so that Ray does not wrap it."""
    if version != __version__:
        return _foreign(f"has version {__version__}, not {version}")
    try:
        return function(_fetched(box[0]), item)
    except ZMaskError as exc:
        return exc


@functools.lru_cache(maxsize=1)
def _fetched(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _foreign(what: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"A worker's machine has another zmask-export: it {what}.",
        fix="Install the same zmask-export on every machine of the cluster.",
    )


def _short(exc: BaseException) -> str:
    """The last line says what happened, where a traceback comes before it."""
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return " ".join(lines[-1].split())[:200]
