"""Names and payloads that hold control characters never reach a terminal raw, whatever prints them."""

from __future__ import annotations

import pytest

from dalsegno import Client, Run
from dalsegno.core.store import open_store
from tests.tools.conftest import Cli

NASTY = "x\x1b[2J\x9b31m\u202e\r\b\x7f[bold]y[/bold]\\"
UNSAFE = set("\x1b\x9b\u202e\r\b\x7f")


@pytest.fixture
def nasty(url: str) -> str:
    """A store with a run whose id, workflow, tags, arguments, state, signals and errors hold escape sequences."""
    with Client(url) as client:
        run: Run[object] = client.start(NASTY, NASTY, id=NASTY, tags={NASTY: NASTY})
        run.signal(NASTY, {NASTY: NASTY})
    return url


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["ls", "--json"],
        ["show", NASTY],
        ["show", NASTY, "--payloads"],
        ["show", NASTY, "--json", "--payloads"],
        ["show", NASTY + "?"],
        ["diff", NASTY, "order-1"],
        ["diff", NASTY, "order-1", "--json"],
        ["verify", NASTY, "--app", "tests.tools.shop"],
        ["verify", NASTY, "--app", "tests.tools.shop", "--json"],
        ["stats"],
        ["stats", "--json"],
        ["check"],
        ["export", NASTY, "-"],
    ],
    ids=lambda command: " ".join([command[0], *(word for word in command if word.startswith("--"))]),
)
def test_nothing_acts_on_the_terminal(command: list[str], run_replay: Cli, nasty: str):
    """No control character is in the output, on either stream, and markup in names is not taken for markup."""
    codes = {"diff": 1, "verify": 2}
    code = 1 if command[-1].endswith("?") else codes.get(command[0], 0)
    result = run_replay(*command, "--store", nasty, code=code)
    assert not UNSAFE & set(result.stdout + result.stderr)
    if command[0] in ("show", "diff"):
        assert "[bold]" in result.stdout + result.stderr


def test_operations_print_safely(run_dalsegno: Cli, nasty: str):
    """What a command that acts says of a run is safe, too."""
    for command in (["signal", NASTY, NASTY], ["pause", NASTY], ["signal", NASTY + "?", "x"]):
        result = run_dalsegno(*command, "--store", nasty, code=1 if command[1].endswith("?") else 0)
        assert not UNSAFE & set(result.stdout + result.stderr)
    with open_store(nasty) as store:
        assert store.find(NASTY) is not None
