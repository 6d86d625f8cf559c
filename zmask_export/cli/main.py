"""The command line: one file a verb, errors shown as two lines."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from zmask_export import __version__
from zmask_export.artifacts.files import output_error
from zmask_export.cli import heap, interrupts, limited
from zmask_export.cli.missing import not_installed
from zmask_export.errors import UsageError, ZMaskError, memory_limit, out_of_memory, shortage

_VERBS = {
    "build": "Build a protected, verified engine for a network.",
    "calibrate": "Measure a network's activations on clean images.",
    "craft": "Craft a universal adversarial patch.",
    "evaluate": "Measure how well a bundle defends, on labelled images.",
    "fit": "Fit the fusion block and choose the threshold.",
    "profile": "Measure what a bundle costs here, and write its report.",
    "inspect": "Show what a bundle is: inputs, outputs, settings, files, layers.",
    "doctor": "Say what this machine can build and run, and how to get the rest.",
    "keygen": "Make a pair of keys that sign bundles and check them.",
    "monitor": "Say when the scores of clean frames leave the calibrated distribution.",
    "plan": "Show how each tap's cascade is lowered, and what it costs.",
    "run": "Run images through a bundle: predictions, masks, JSON lines.",
    "sign": "Sign a built bundle, or sign it with another key.",
    "triton": "Write a bundle into a model repository of NVIDIA Triton.",
    "verify": "Compare a bundle with the PyTorch reference again.",
}

_COMPUTING = {"build", "calibrate", "craft", "evaluate", "fit", "verify"}
"""Verbs whose tensors are large."""


UNREAD = 141
"""Exit code where nobody reads the output any more: what a shell says of SIGPIPE."""


_OUTPUT = Path("The output")
"""What a failed write without a file's name was to."""


@contextlib.contextmanager
def _unread_ends() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as exc:
        raise click.exceptions.Exit(UNREAD) from exc


class _Verbs(click.Group):
    """Loads a verb's module when it is used, so that --help needs neither torch nor TensorRT."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        return importlib.import_module(f"zmask_export.cli.{name}").command

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _unread_ends():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _unread_ends():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zmask-export")
def cli() -> None:
    """Compile convolutional networks into engines that find and cover adversarial patches.

    \b
    Examples:
      zmask-export build --model icnet
      zmask-export run engines/icnet street.png --out results
      zmask-export COMMAND --help
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Errors of ours become two lines and their exit code; never a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    if memory_limit() is None or not limited.SUPPORTED:
        if not _COMPUTING.isdisjoint(given):
            heap.keep_freed()
        sys.exit(run(given))
    code = limited.run_in_child(lambda: run(given))
    sys.exit(_show(out_of_memory(), given) if code is None else code)


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    given = arguments or ["--help"]
    with interrupts.remembered():
        return _flushed(_run(given), given)


def _run(given: list[str]) -> int:
    try:
        result: Any = cli.main(args=given, prog_name="zmask-export", standalone_mode=False)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except Exception as exc:
        # After an interrupt that a library swallowed anything may fail, for no reason of the user's.
        if isinstance(exc, click.Abort) or interrupts.happened():
            verb = next((name for name in given if name in _VERBS), "")
            with contextlib.suppress(OSError):  # the terminal may be gone
                click.echo(interrupts.message(verb), err=True)
            return interrupts.exit_code()
        error = _ours(exc)
        if error is None:
            raise
        return _show(error, given)
    return result if isinstance(result, int) else 0


def _flushed(code: int, given: list[str]) -> int:
    """Flush standard streams, which would else fail as the interpreter ends; the exit code after that."""
    lost = _emptied(sys.stdout)
    if lost is not None and code == 0:
        unread = isinstance(lost, BrokenPipeError)
        code = UNREAD if unread else _show(output_error(_OUTPUT, lost), given)
    _emptied(sys.stderr)
    return code


def _emptied(stream: TextIO | None) -> OSError | None:
    """Flush a stream; where that fails, drop what it holds, and return why."""
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as exc:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return exc
    return None


def _ours(exc: Exception) -> ZMaskError | None:
    """The error of ours that says what a caught one says; None where it is a fault of the program."""
    lack = shortage(exc)
    if lack is not None:
        return lack
    if isinstance(exc, ZMaskError):
        return exc
    if isinstance(exc, click.ClickException):
        return _usage(exc)
    if isinstance(exc, ModuleNotFoundError):
        return not_installed(exc)
    if isinstance(exc, OSError):
        return output_error(Path(exc.filename) if exc.filename else _OUTPUT, exc)
    # Anything may fail where memory is refused, and some libraries hide why.
    return out_of_memory() if limited.exhausted() else None


def _usage(exc: click.ClickException) -> UsageError:
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    command = context.command_path if context else "zmask-export"
    return UsageError(exc.format_message(), fix=f"See {command} --help.")


def _show(error: ZMaskError, given: list[str]) -> int:
    with contextlib.suppress(OSError):  # the exit code says it where nobody can be told
        if "--json" in given:
            record = {"error": type(error).__name__, "what": error.what, "fix": error.fix}
            click.echo(json.dumps(record))
        else:
            click.echo(f"Error: {error}", err=True)
    return error.exit_code


if __name__ == "__main__":
    main()
