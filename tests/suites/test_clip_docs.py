"""The page on the real suite: its commands are run on the miniature Hub where they can be, and understood where not."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from huggingface_hub import constants

from dts_mini.cli import _parser, main

PAGE = (Path(__file__).parents[2] / "docs/how-to/real-suite.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.startswith("dts-mini ")]


@pytest.fixture
def miniature(done, _cache, monkeypatch, offline):
    """A home where a run has been, so that the commands find everything made."""
    home = done[0].home
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(_cache))
    monkeypatch.setenv("DTS_HOME", str(home.parent))
    monkeypatch.setenv("DTS_DEVICE", "cpu")
    return home


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    options = _parser().parse_args(shlex.split(command)[1:])
    assert options.command == "reproduce"


def test_the_first_commands_and_the_snippet_do_what_the_page_says(miniature, capsys):
    plan, run = (command for command in COMMANDS[:2])
    assert plan == f"{run} --dry-run"
    assert main(shlex.split(plan)[1:]) == 0
    assert "to download: 0 bytes" in capsys.readouterr().out
    assert main(shlex.split(run)[1:]) == 0
    made = miniature / "P3-8-fused"
    for name in re.findall(r"^\| `(\S+)` \|", PAGE, re.MULTILINE):
        assert (made / name).is_file(), name
    (snippet,) = [text for kind, text in BLOCKS if kind == "python"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(snippet, {})
    assert re.fullmatch(r"\d+\.\d\d % of the expert\n|\d+\.\d\d% of the expert\n", out.getvalue())


def test_the_messages_that_the_page_explains_are_those_of_the_code():
    suites = Path(__file__).parents[2] / "dts_mini/suites"
    source = "".join(path.read_text() for path in [*suites.glob("*.py"), *(suites / "clip").glob("*.py")])
    plain = re.sub(r'"\s*\n\s*f?"', "", source)  # strings that are cut over lines
    for message in re.findall(r"^\| `(.+?)` \|", PAGE, re.MULTILINE)[3:]:
        for part in re.split(r"\.\.\.", message):
            assert part.strip(" ,") in plain, part
