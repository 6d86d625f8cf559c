"""The command line: one file a verb, errors shown as two lines."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from zmask_export import __version__
from zmask_export.artifacts.files import output_error
from zmask_export.cli import interrupts
from zmask_export.cli.missing import not_installed
from zmask_export.errors import BackendError, UsageError, ZMaskError

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


class _Verbs(click.Group):
    """Loads a verb's module when it is used, so that --help needs neither torch nor TensorRT."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        return importlib.import_module(f"zmask_export.cli.{name}").command

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
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    with interrupts.remembered():
        try:
            result: Any = cli.main(args=given, prog_name="zmask-export", standalone_mode=False)
        except click.exceptions.Exit as exc:
            return exc.exit_code
        except Exception as exc:
            # After an interrupt that a library swallowed anything may fail, for no reason of the user's.
            if isinstance(exc, click.Abort) or interrupts.happened():
                click.echo(
                    "Interrupted. Long runs go on where they stopped when started again.", err=True
                )
                return 130
            error = _ours(exc)
            if error is None:
                raise
            return _show(error, as_json="--json" in given)
    return result if isinstance(result, int) else 0


def _ours(exc: Exception) -> ZMaskError | None:
    """The error of ours that says what a caught one says; None where it is a fault of the program."""
    if isinstance(exc, ZMaskError):
        return exc
    if isinstance(exc, click.ClickException):
        return _usage(exc)
    if isinstance(exc, ModuleNotFoundError):
        return not_installed(exc)
    if isinstance(exc, OSError):
        return output_error(Path(exc.filename or "."), exc)
    # torch, which may not be imported here, raises a RuntimeError where memory runs out.
    full = isinstance(exc, RuntimeError) and re.search("allocate memory|out of memory", str(exc))
    if full or isinstance(exc, MemoryError):
        return BackendError("Out of memory.", fix="Give a smaller --batch or --input-size.")
    return None


def _usage(exc: click.ClickException) -> UsageError:
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    command = context.command_path if context else "zmask-export"
    return UsageError(exc.format_message(), fix=f"See {command} --help.")


def _show(error: ZMaskError, *, as_json: bool) -> int:
    if as_json:
        record = {"error": type(error).__name__, "what": error.what, "fix": error.fix}
        click.echo(json.dumps(record))
    else:
        click.echo(f"Error: {error}", err=True)
    return error.exit_code


if __name__ == "__main__":
    main()
