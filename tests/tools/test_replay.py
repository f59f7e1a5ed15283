"""`replay`, command by command, on a store that the engine made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno.core.store import open_store
from tests.tools.conftest import Cli, everything

APP = "tests.tools.shop"
CHANGED = "tests.tools.shop_changed"


# --- ls ------------------------------------------------------------------------------------------------------------


def test_ls_lists_every_run_newest_first(run_replay: Cli, url: str):
    """A line for each run, with workflow and status."""
    lines = run_replay("ls", "--store", url).stdout.splitlines()
    names = [line.split()[0] for line in lines[2:]]
    assert names.index("both-1") < names.index("order-3") < names.index("order-1")
    assert any(line.split()[:3] == ["stock-1", "stocktaking", "failed"] for line in lines)


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--status", "failed"], ["stock-1"]),
        (["--status", "open"], ["nap-1", "order-3"]),
        (["--status", "closed", "--workflow", "fulfil"], ["order-2", "order-1"]),
        (["--tag", "region=eu"], ["order-2", "order-1"]),
        (["--tag", "region=us", "--status", "running"], ["order-3"]),
        (["--age", "1h"], []),
        (["--since", "1h", "--workflow", "nap"], ["nap-1"]),
    ],
)
def test_ls_filters(run_replay: Cli, url: str, options: list[str], ids: list[str]):
    """Filters by status, workflow, tag and age narrow the list, together."""
    found = json.loads(run_replay("ls", "--store", url, "--json", *options).stdout)
    assert [run["id"] for run in found["runs"]] == ids
    assert found["more"] is False


def test_ls_says_when_it_was_cut(run_replay: Cli, url: str):
    """A list that --limit cut says so, in tables and in JSON."""
    assert "only the newest 2" in run_replay("ls", "--store", url, "--limit", "2").stderr
    found = json.loads(run_replay("ls", "--store", url, "--limit", "2", "--json").stdout)
    assert len(found["runs"]) == 2
    assert found["more"] is True


# --- show ----------------------------------------------------------------------------------------------------------


def test_show_draws_the_history(run_replay: Cli, url: str):
    """Every event has a line with what happened, to which step, and a bar; a second attempt is counted."""
    shown = run_replay("show", "order-1", "--store", url).stdout
    assert "order-1#1  fulfil  completed" in shown
    assert 'state stage = "waiting"' in shown
    assert "step attempt failed" in shown
    assert "ConnectionError: no van" in shown
    shipped = next(line for line in shown.splitlines() if "step completed" in line and "ship" in line)
    assert " 2 " in shipped
    assert "━" in shipped


def test_show_as_json(run_replay: Cli, url: str):
    """The data behind the timeline has every event, and payloads in full where they are asked for."""
    found = json.loads(run_replay("show", "order-2#1", "--store", url, "--json", "--payloads").stdout)
    assert found["run"]["run_id"] == "order-2#1"
    assert found["state"]["stage"]["json"] == "waiting"
    kinds = [event["event"] for event in found["events"]]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunCompleted"
    assert found["events"][-1]["payload"]["json"] == "receipt 2: 10"
    assert found["unreadable"] is None


def test_show_around_an_event(run_replay: Cli, url: str):
    """--around shows the neighbourhood of an event only, and refuses an event that is not there."""
    found = json.loads(run_replay("show", "order-1", "--around", "0", "--store", url, "--json").stdout)
    assert [event["index"] for event in found["events"]] == list(range(min(6, len(found["events"]))))
    assert "numbered from 0" in run_replay("show", "order-1", "--around", "99", "--store", url, code=2).stderr


def test_show_prints_payloads_in_full(run_replay: Cli, url: str):
    """--payloads prints each payload below the timeline."""
    assert '"granted": true' in run_replay("show", "order-1", "--store", url, "--payloads").stdout


def test_show_fits_a_narrow_terminal(run_replay: Cli, url: str):
    """On 80 columns every event still has one line."""
    shown = run_replay("show", "order-1", "--store", url, COLUMNS="80").stdout.splitlines()
    assert max(map(len, shown)) <= 80
    events = json.loads(run_replay("show", "order-1", "--store", url, "--json").stdout)["events"]
    assert sum(line.lstrip()[:1].isdigit() for line in shown) == len(events)


# --- verify --------------------------------------------------------------------------------------------------------


def test_verify_fits(run_replay: Cli, url: str):
    """The code that recorded the histories fits all of them, open ones included."""
    assert "8 fit, 0 diverge" in run_replay("verify", "--all", "--app", APP, "--store", url).stdout


def test_verify_names_the_first_divergence(run_replay: Cli, url: str):
    """Changed code is found at the first event it no longer fits, with both sides, line and source."""
    shown = run_replay("verify", "order-1", "--app", CHANGED, "--store", url, code=1).stdout
    assert "first at event 1 of order-1#1" in shown
    assert "recorded  step 'charge'" in shown
    assert "yielded   step 'reserve'" in shown
    assert "yield from reserve(order)" in shown


def test_verify_groups_by_cause(run_replay: Cli, url: str):
    """Runs that diverge for one reason are one group; what cannot be told is counted apart."""
    found = json.loads(run_replay("verify", "--all", "--app", CHANGED, "--store", url, "--json", code=1).stdout)
    groups = {group["workflow"]: group for group in found["groups"]}
    assert groups["fulfil"]["runs"] == 3
    assert groups["fulfil"]["open"] == 1
    assert groups["nap"]["verdict"] == "unknown"
    assert found["counts"]["diverges"] == 3


def test_verify_that_cannot_tell(run_replay: Cli, url: str):
    """A workflow that the app does not have is no divergence, and no fit."""
    assert "has no workflow 'nap'" in run_replay("verify", "nap-1", "--app", CHANGED, "--store", url, code=2).stdout


def test_verify_wants_runs_or_all(run_replay: Cli, url: str):
    """Neither runs nor --all, or both, is a question back."""
    assert "name the runs" in run_replay("verify", "--app", APP, "--store", url, code=2).stderr
    assert "name the runs" in run_replay("verify", "order-1", "--all", "--app", APP, "--store", url, code=2).stderr


# --- diff ----------------------------------------------------------------------------------------------------------


def test_diff_of_two_runs(run_replay: Cli, url: str):
    """Two orders part at their arguments; --json has every divergence."""
    shown = run_replay("diff", "order-1", "order-2", "--store", url, code=1).stdout
    assert "They part at event 0 of A, 0 of B" in shown
    assert "arguments[0][0].id" in shown
    found = json.loads(run_replay("diff", "order-1", "order-2", "--store", url, "--json", code=1).stdout)
    assert found["divergences"][0]["differences"] == [{"field": "arguments[0][0].id", "a": 1, "b": 2}]


def test_diff_across_stores(run_replay: Cli, url: str, tmp_path: Path):
    """A run is the same as its export in a file."""
    file = tmp_path / "order.jsonl"
    run_replay("export", "order-1", str(file), "--store", url)
    assert "The same" in run_replay("diff", "order-1", "order-1", "--store", url, "--other", f"file:{file}").stdout


# --- export and import ---------------------------------------------------------------------------------------------


def test_export_and_import_move_everything(run_replay: Cli, url: str, tmp_path: Path):
    """Every history arrives, and what waits in an inbox and what was published with it; byte for byte."""
    file, target = tmp_path / "all.jsonl", f"lmdb:{tmp_path}/other"
    run_replay("export", "--all", str(file), "--store", url)
    done = json.loads(run_replay("import", str(file), "--store", target, "--json").stdout)
    with open_store(url) as before, open_store(target) as after:
        histories, moved = everything(before), everything(after)
        assert moved == histories
        assert sorted(done["imported"]) == sorted(histories)
        there, here = after.find("order-3"), before.find("order-3")
        assert there is not None
        assert here is not None
        assert there.restore is True
        assert after.published(there.number) == before.published(here.number)
        kinds = [(m.name, m.payload) for m in after.inbox(there.number) if m.kind == "signal"]
        assert ("late", b"\xc0") in [(name, payload[-1:]) for name, payload in kinds]
        assert kinds == [(m.name, m.payload) for m in before.inbox(here.number) if m.kind == "signal"]
    run_replay("check", "--store", target)


def test_export_to_standard_output(run_replay: Cli, url: str):
    """FILE - writes the lines to stdout and nothing else."""
    lines = run_replay("export", "order-1", "-", "--store", url).stdout.splitlines()
    assert json.loads(lines[0])["format"] == 1
    assert json.loads(lines[-1])["end"]["runs"] == 1


def test_export_leaves_no_half_file(run_replay: Cli, url: str, tmp_path: Path):
    """A path that cannot be written is an error, and a failed export leaves nothing behind."""
    assert (
        "there is no folder" in run_replay("export", "order-1", str(tmp_path / "no/x"), "--store", url, code=2).stderr
    )
    run_replay("export", "nobody", str(tmp_path / "x.jsonl"), "--store", url, code=1)
    assert list(tmp_path.glob("*.jsonl*")) == []


def test_import_skips_what_is_there(run_replay: Cli, url: str, tmp_path: Path):
    """An id that is taken stops the import, unless it is to be left out."""
    file = tmp_path / "one.jsonl"
    run_replay("export", "order-1", str(file), "--store", url)
    assert "nothing was imported" in run_replay("import", str(file), "--store", url, code=1).stderr
    done = json.loads(run_replay("import", str(file), "--store", url, "--skip-existing", "--json").stdout)
    assert done == {"imported": [], "skipped": ["order-1#1"]}


def test_an_exported_file_is_read_like_a_store(run_replay: Cli, url: str, tmp_path: Path):
    """Every reading command takes file:PATH."""
    file = tmp_path / "all.jsonl"
    run_replay("export", "--all", str(file), "--store", url)
    source = f"file:{file}"
    assert "order-2" in run_replay("ls", "--store", source).stdout
    assert "step completed" in run_replay("show", "order-2", "--store", source).stdout
    assert "0 diverge" in run_replay("verify", "--all", "--app", APP, "--store", source).stdout
    run_replay("stats", "--store", source)
    run_replay("check", "--store", source)


# --- stats and check -----------------------------------------------------------------------------------------------


def test_stats(run_replay: Cli, url: str):
    """Counts per status and workflow, the success rate, events and bytes."""
    found = json.loads(run_replay("stats", "--store", url, "--json").stdout)
    assert found["workflows"]["fulfil"]["statuses"] == {"running": 1, "completed": 2}
    assert found["workflows"]["stocktaking"]["success"] == 0
    assert found["all"]["runs"] == found["store"]["runs"] == found["started"]["day"]
    assert found["events"] > 10
    shown = run_replay("stats", "--store", url).stdout
    assert "success" in shown
    assert "stocktaking" in shown


def test_check_is_content_with_a_sound_store(run_replay: Cli, url: str):
    """Nothing is wrong: exit code 0."""
    assert json.loads(run_replay("check", "--store", url, "--json").stdout)["problems"] == []


def test_check_finds_a_flipped_byte(run_replay: Cli, url: str, folder: Path):
    """A damaged record is named, with exit code 1, and the other runs can still be read."""
    data = bytearray((folder / "data.mdb").read_bytes())
    places = [at for at in range(len(data)) if data.startswith(b"receipt 1: 10", at)]
    assert places
    for at in places:
        data[at] ^= 1
    (folder / "data.mdb").write_bytes(bytes(data))
    shown = run_replay("check", "--store", url, code=1)
    assert "order-1#1" in shown.stdout
    assert "problem" in shown.stderr
    run_replay("show", "order-2", "--store", url)
    assert "Traceback" not in run_replay("show", "order-1", "--store", url, code=3).stderr


# --- as a process --------------------------------------------------------------------------------------------------


def test_as_a_real_process(url: str, tmp_path: Path):
    """The installed command reads, exports and verifies, and answers with its exit code."""
    program = str(Path(sys.executable).with_name("replay"))
    root = Path(__file__).parents[2]

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *args, "--store", url], cwd=root, capture_output=True, text=True, check=False)

    assert "order-1" in call("ls").stdout
    assert call("show", "order-1").returncode == 0
    assert call("verify", "--all", "--app", APP).returncode == 0
    assert call("verify", "order-1", "--app", CHANGED).returncode == 1
    assert call("export", "--all", str(tmp_path / "x.jsonl")).returncode == 0
    assert call("stats", "--json").returncode == 0
    assert call("check").returncode == 0
    missing = call("show", "nobody")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: no run has the id 'nobody'")
    assert missing.stdout == ""


# --- histories that cannot be read to the end ----------------------------------------------------------------------


def test_half_a_history_is_shown_as_far_as_it_goes(run_replay: Cli, half: str):
    """What can be read is shown, the first event that cannot is marked, and the reason is told."""
    result = run_replay("show", "half-1", "--store", half)
    assert "cannot be read" in result.stdout
    assert "warning: event 2 cannot be read" in result.stderr
    found = json.loads(run_replay("show", "half-1", "--store", half, "--json").stdout)
    assert [event["index"] for event in found["events"]] == [0, 1]
    assert found["unreadable"]["index"] == 2
    assert "later release" in found["unreadable"]["why"]


def test_half_a_history_elsewhere(run_replay: Cli, half: str, tmp_path: Path):
    """It is neither fit nor divergence, is compared as far as it goes, found by check, and not exported by half."""
    assert "1 could not be told" in run_replay("verify", "half-1", "--app", APP, "--store", half, code=2).stdout
    assert "up to event 2" in run_replay("diff", "half-1", "order-2", "--store", half, code=1).stderr
    assert "half-1#1" in run_replay("check", "--store", half, code=1).stdout
    refused = run_replay("export", "half-1", str(tmp_path / "x.jsonl"), "--store", half, code=4)
    assert "half-1#1 cannot be exported" in refused.stderr
    assert list(tmp_path.glob(".*")) == list(tmp_path.glob("*.jsonl")) == []


def test_export_into_a_pipe(run_replay: Cli, url: str, tmp_path: Path):
    """What is no file is written to as it is, not replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        run_replay("export", "order-1", str(pipe), "--store", url)
        assert pipe.is_fifo()
        assert os.read(reader, 1 << 16).startswith(b'{"dalsegno": "histories"')
    finally:
        os.close(reader)
