"""Every command explains itself: one line, one example that can be pasted, and the form of its --json."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from dalsegno.tools import operate, replay
from dalsegno.tools.completing import EventKind, SignalName, StepName
from dalsegno.tools.options import AppName, RunName, WorkflowName

GROUPS = {"replay": replay.main, "dalsegno": operate.main}


def commands() -> Iterator[tuple[str, str, click.Command]]:
    """Every command of both programs."""
    for program, group in GROUPS.items():
        assert isinstance(group, click.Group)
        for name, command in group.commands.items():
            yield program, name, command


ALL = [pytest.param(*found, id=f"{found[0]} {found[1]}") for found in commands()]


def test_the_commands_of_the_contract_are_there():
    """What the contract lists exists."""
    assert set(replay.main.commands) == {
        "ls", "show", "verify", "step", "debug", "diff", "fork", "export", "import", "stats", "check", "prune", "lint",
        "why", "where", "coverage", "top",
    }  # fmt: skip
    assert set(operate.main.commands) == {
        "worker", "start", "signal", "cancel", "terminate", "pause", "resume", "complete", "fail", "compact", "demo",
        "queues",
    }  # fmt: skip


@pytest.mark.parametrize(("program", "name", "command"), ALL)
def test_help_has_a_line_and_an_example(program: str, name: str, command: click.Command):
    """The help begins with one sentence and has an example, whose options the command takes."""
    text = CliRunner().invoke(GROUPS[program], [name, "--help"]).output
    assert f"{program} {name}" in text or f"main {name}" in text
    assert (command.help or "").split("\n\n")[0].endswith(".")
    assert "\n" not in (command.help or "").split("\n\n")[0]
    example = next(line.strip() for line in text.split("Example:\n")[1].splitlines())
    words = shlex.split(example)
    assert words[:2] == [program, name]
    command.make_parser(click.Context(command)).parse_args(words[2:])


@pytest.mark.parametrize(("program", "name", "command"), ALL)
def test_json_is_offered_and_described(program: str, name: str, command: click.Command):
    """Every command that prints something offers --json, and describes its form."""
    if (program, name) == ("replay", "export"):
        return  # what it writes is JSON
    assert any("--json" in param.opts for param in command.params)
    assert "With --json:" in " ".join((command.help or "").split())


@pytest.mark.parametrize("program", GROUPS)
def test_the_program_explains_completion_and_exit_codes(program: str):
    """The program's own help says how to switch completion on, and what its exit codes mean."""
    text = CliRunner().invoke(GROUPS[program], ["--help"]).output
    assert f"_{program.upper()}_COMPLETE=bash_source {program}" in text
    assert "Exit codes: 0 done" in text


def completions(program: str, *words: str) -> list[str]:
    """What a shell would propose for the last word."""
    completer = BashComplete(GROUPS[program], {}, program, f"_{program.upper()}_COMPLETE")
    return [item.value for item in completer.get_completions(list(words[:-1]), words[-1])]


PROPOSED = {
    "run": RunName, "runs": RunName, "a": RunName, "b": RunName, "workflow": WorkflowName, "app": AppName,
    ("step", "s"): StepName, ("step", "e"): EventKind, ("signal", "name"): SignalName,
}  # fmt: skip


@pytest.mark.parametrize(("program", "name", "command"), ALL)
def test_what_can_be_completed_is(program: str, name: str, command: click.Command):
    """Whatever names a run, a workflow, a step, a signal or an app has a type that proposes names for it."""
    for param in command.params:
        wanted = PROPOSED.get((name, param.name or ""), PROPOSED.get(param.name or ""))
        assert wanted is None or isinstance(param.type, wanted), f"{program} {name} {param.name}"
        metavar = param.make_metavar(click.Context(command)) if param.name != "help" else ""
        assert "RUN" not in metavar or isinstance(param.type, RunName)


@pytest.mark.parametrize(("program", "name", "command"), ALL)
def test_run_ids_are_completed_by_every_command(program: str, name: str, command: click.Command, url: str):
    """Each command that takes a run proposes those of the store that is meant."""
    if any(isinstance(param.type, RunName) for param in command.params):
        assert completions(program, name, "--store", url, "order-") == ["order-3", "order-2", "order-1"]
    if any(param.opts == ["--workflow"] for param in command.params):
        assert completions(program, name, "--store", url, "--workflow", "n") == ["nap"]


def test_names_of_a_run_are_completed(url: str, folder: Path, tmp_path: Path):
    """Steps and kinds of events, signals that runs of the workflow have received, and the other store of a diff."""
    assert completions("replay", "step", "order-1", "--store", url, "--step", "") == ["charge", "ship"]
    assert completions("dalsegno", "signal", "--store", url, "order-3", "") == ["approval", "unasked"]
    assert completions("dalsegno", "signal", "--store", url, "nobody", "") == []
    shutil.copytree(folder, tmp_path / "other")
    options = ("--store", "lmdb:/nowhere", "--other", f"lmdb:{tmp_path}/other")
    assert completions("replay", "diff", *options, "order-1", "nap") == ["nap-1"]
    assert completions("dalsegno", "start", "--store", url, "ful") == ["fulfil"]
    assert completions("replay", "verify", "--app", "tests/to") == ["tests/to"]  # the shell's own, of files


def test_run_ids_are_completed_from_the_store(url: str, monkeypatch: pytest.MonkeyPatch):
    """The ids in the store that is meant are proposed, newest first; a store that is not there proposes nothing."""
    assert completions("replay", "show", "--store", url, "order-") == ["order-3", "order-2", "order-1"]
    assert completions("dalsegno", "signal", "--store", url, "na") == ["nap-1"]
    assert completions("replay", "ls", "--store", url, "--workflow", "f") == ["fulfil"]
    assert completions("replay", "show", "--store", "lmdb:/nowhere", "order-") == []
    monkeypatch.setenv("DALSEGNO_STORE", url)
    assert completions("replay", "show", "stock") == ["stock-1"]
