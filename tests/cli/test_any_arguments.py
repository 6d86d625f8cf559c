"""Any arguments to any verb end with an exit code of ours: none is a fault of the program."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import zmask
from zmask_export.cli.main import cli

CONTEXT = click.Context(cli)
VERBS = [name for name in cli.list_commands(CONTEXT) if name != "doctor"]
"""doctor takes nothing that could be wrong."""
MISSING = "missing/file"
WORDS = (
    "", " ", "-", "--", "-1", "0", "1", "1e999", "nan", "-inf", "1x1", "0x0", "99999x99999", "8.9", "icnet",
    "paper", "all", ".", "..", "/", "/dev/null", "\n", "é", "\udcff", "a" * 300, "a:b", "a/../b",
    "res_block5,res_block5", ",", "{}", "[", str(2**63), str(-(2**63)),
)  # fmt: skip

# An argument holds no NUL; bytes that are no UTF-8 come as half a surrogate.
word = st.sampled_from(WORDS) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=8
)


@st.composite
def command_lines(draw: st.DrawFn, verb: str) -> list[str]:
    """A verb with some of its options; what it must have is a file that is missing: it ends early."""
    command = cli.get_command(CONTEXT, verb)
    assert command is not None
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    line = [verb]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)):
        line.append(draw(st.sampled_from(option.opts)))
        line += [] if option.is_flag else [draw(word)]
    for parameter in command.params:
        if parameter.required or parameter.name in ("preset", "bundle"):
            line += parameter.opts[-1:] if isinstance(parameter, click.Option) else []
            line.append(MISSING)
    return line + draw(st.lists(word, max_size=2))


@pytest.mark.parametrize("verb", VERBS)
def test_any_command_line_ends_with_a_code_of_ours(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    @settings(max_examples=15, deadline=None)
    @given(command_lines(verb))
    def ends(line: list[str]) -> None:
        outcome = zmask(*line)
        assert outcome.code in range(9)
        if outcome.code:
            assert outcome.err.count("Error: ") == 1 or "--json" in line
        assert list(tmp_path.rglob(".*")) == []

    ends()
