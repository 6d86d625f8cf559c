"""zmask-export monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zmask_export.cli.options import PATH, as_json


@click.command("monitor")
@click.argument("calibration", type=PATH, metavar="CALIBRATION_OR_BUNDLE")
@click.argument("results", type=PATH, default="-", metavar="[RESULTS.jsonl|-]")
@click.option(
    "--false-alarms",
    type=float,
    default=0.01,
    show_default=True,
    help="Largest probability of ever raising the alarm on a stream without drift, however long.",
)
@click.option(
    "--every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Take every Nth frame only: neighbours in a video depend on each other, which the test excludes.",
)
@click.option(
    "--on-bad-line",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What to do with lines that run did not print.",
)
@click.option("--until-alarm", is_flag=True, help="Stop reading at the alarm.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the chance that breaks ties."
)
@as_json
def command(
    calibration: Path,
    results: Path,
    false_alarms: float,
    every: int,
    on_bad_line: Any,
    until_alarm: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Say when the scores of clean frames leave the calibrated distribution.

    Reads the JSON lines that run prints, from a file or as they come. Flagged frames are counted apart.
    Exit code 0: no drift was found; 7: drift; 8: none, but more frames are flagged than the
    calibration explains.

    \b
    Examples:
      zmask-export monitor engines/icnet results/results.jsonl
      zmask-export run engines/icnet frames/ | zmask-export monitor engines/icnet --until-alarm
      zmask-export monitor engines/icnet results.jsonl --every 100 --false-alarms 0.001 --json
    """
    from zmask_export.cli.console import ConsoleReporter
    from zmask_export.pipeline.monitor import MonitorOptions, monitor

    options = MonitorOptions(false_alarms, every, on_bad_line, until_alarm, seed)
    report = monitor(calibration, results, options, reporter=ConsoleReporter())
    problem = report.problem()
    if as_json:
        # The report says more than an error would; the exit code is that of the error.
        click.echo(report.model_dump_json())
        raise click.exceptions.Exit(problem.exit_code if problem else 0)
    _show(report)
    if problem:
        raise problem


def _show(report: Any) -> None:
    from rich.table import Table

    from zmask_export.cli.console import table_console

    table = Table(title=f"Verdict: {report.verdict}", title_justify="left")
    for name in ("", "calibration", "results"):
        table.add_column(name, overflow="fold")
    recent = report.recent
    rows = [
        ("clean frames", str(report.reference), f"{report.tested} tested of {report.frames} read"),
        ("quartiles of d", _quartiles(report.calibrated), _quartiles(recent) if recent else "none"),
        ("flagged", _rate(report.calibrated_flags), _rate(report.flags)),
        ("dependence", "", _dependence(report)),
        ("evidence", f"alarm at {report.alarm_at:.2f}", f"{report.evidence:.2f}"),
    ]
    for row in rows:
        table.add_row(*row)
    console = table_console()
    console.print(table)
    console.print(
        f"Threshold {report.threshold:.6g}, every {report.every}; {report.bad_lines} bad lines skipped, "
        f"{report.untrusted} untrusted masks. Without a drift the alarm is ever raised with a probability "
        f"of at most {report.false_alarms:g}, if frames do not depend on each other."
    )


def _dependence(report: Any) -> str:
    if report.dependence is None:
        return "unknown"
    return f"{report.dependence:.2f}{', too much: raise --every' if report.dependent else ''}"


def _quartiles(scores: Any) -> str:
    return f"{scores.lower:.4g}, {scores.median:.4g}, {scores.upper:.4g}"


def _rate(rate: Any) -> str:
    return f"{rate.flagged} of {rate.frames} ({rate.lower:.4f} to {rate.upper:.4f})"
