"""A page for every verb, from the command line's own description of itself."""

from __future__ import annotations

import inspect

import click

from zmask_export.cli import main as program
from zmask_export.cli.options import network_options

from .text import cell, prose


def names() -> list[str]:
    """Every verb, in the order of ``--help``."""
    return sorted(program._VERBS)


def index() -> str:
    """The page that lists them."""
    rows = [
        f"| [`{name}`]({name}.md) | {prose(program._VERBS[name])} | {'yes' if _has_json(name) else ''} |"
        for name in names()
    ]
    return "\n".join(
        [
            "# Verbs",
            "",
            "| `zmask-export` | does | `--json` |",
            "| --- | --- | --- |",
            *rows,
            "",
            "The same is on the screen with `zmask-export --help` and `zmask-export VERB --help`. Errors",
            "go to standard error as two lines, what and how to fix it; with `--json` they are one JSON",
            "object on standard output. What exit codes mean is in",
            "[Troubleshooting](../troubleshooting.md#exit-codes).",
            "",
        ]
    )


def page(name: str) -> str:
    """One verb: what it does, examples, arguments and options."""
    command = _command(name)
    summary, examples = _parts(command)
    context = click.Context(command, info_name=f"zmask-export {name}")
    lines = [f"# {name}", "", *summary, ""]
    if examples:
        lines += ["## Examples", "", "```bash", *examples, "```", ""]
    usage = " ".join(command.collect_usage_pieces(context))
    lines += ["## Options", "", "```text", f"zmask-export {name} {usage}", "```", ""]
    shared = _shared()
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    own = [option for option in options if option.name not in shared]
    network = [option for option in options if option.name in shared]
    lines += _table(own, context)
    if network:
        lines += ["### Of the network", "", *_table(network, context)]
    return "\n".join(lines)


def _command(name: str) -> click.Command:
    command = program.cli.get_command(click.Context(program.cli), name)
    if command is None:
        raise KeyError(name)
    return command


def _has_json(name: str) -> bool:
    return any("--json" in option.opts for option in _command(name).params)


def _shared() -> set[str | None]:
    """Names of the options that say which network is meant."""
    return {p.name for p in click.command()(network_options(lambda **_: None)).params}


def _parts(command: click.Command) -> tuple[list[str], list[str]]:
    """The help's paragraphs, and its examples with the end of each line continued."""
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    lines = [line.strip() if line[2:3] != " " else line[2:] for line in examples.splitlines()[1:]]
    return prose(text).strip().splitlines(), [line for line in lines if line]


def _table(options: list[click.Option], context: click.Context) -> list[str]:
    rows = ["| option | meaning |", "| --- | --- |"]
    rows += [f"| {_written(option, context)} | {_meaning(option, context)} |" for option in options]
    return [*rows, ""] if options else []


def _written(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {', '.join(f'`{choice}`' for choice in option.type.choices)}"
    taken = option.make_metavar(context).removesuffix("...").strip()
    # A range is shown with the meaning, where there is room for it.
    return f"{names} `{taken.partition(' ')[0] if option.nargs == 1 else taken}`"


def _meaning(option: click.Option, context: click.Context) -> str:
    parts = [cell(option.help or "")]
    if isinstance(option.type, (click.IntRange, click.FloatRange)):
        parts.append(f"Range: `{option.type._describe_range()}`.")
    if option.show_default and not option.is_flag:
        default = option.get_default(context)
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        parts.append(f"Default: `{shown}`.")
    if option.required:
        parts.append("Required.")
    return " ".join(part for part in parts if part)
