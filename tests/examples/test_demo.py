"""The demo with real processes and real kills, on a small tree; and that it tells when something is wrong."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from dalsegno.backends import lmdb_folder
from dalsegno.examples.demo import run_demo, verify
from dalsegno.examples.demo_watch import DemoFailed

FILES = 60


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of 60 files in six packages, large enough for kills to find steps in flight."""
    root = tmp_path / "tree"
    for number in range(FILES):
        folder = root / f"package{number % 6}"
        folder.mkdir(parents=True, exist_ok=True)
        body = "\n".join(f"def f{n}(x):\n    return [y for y in x if y] or {n}" for n in range(150))
        (folder / f"module{number}.py").write_text("(" if number == 7 else body)
    return root


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_twice_and_nothing_recorded_runs_again(tree: Path, tmp_path: Path, seed: int):
    """After two SIGKILLs the audit finishes, and ledger and histories agree about every step."""
    printed = io.StringIO()
    console = Console(file=printed, width=120)
    result = run_demo(tree, tmp_path / "store", interactive=False, seed=seed, json=False, console=console)
    assert result.ok, result.proof
    assert (result.files, result.findings, result.published) == (FILES, 1, True)
    assert len(result.kills) == 2
    assert 0 < result.kills[0].lines < result.kills[1].lines < result.proof.bodies
    assert result.proof.steps == FILES + 3  # the listing, the files, the two forms of the report
    assert Path(result.html).is_file()
    text = printed.getvalue()
    look = text.split("yourself: ")[1].split()
    assert subprocess.run([*look[:2], "audit-1", *look[3:]], capture_output=True, check=True).stdout
    assert text.count("killed at") == text.count("recovered:") == 2
    assert "no recorded step ran again" in text


@pytest.mark.parametrize("answer", [True, False])
def test_a_person_may_be_asked(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bool):
    """With `interactive` the report is published, or not, as the person at the terminal says."""
    monkeypatch.setattr("rich.prompt.Confirm.ask", lambda *_, **__: answer)
    console = Console(quiet=True)
    result = run_demo(tree, tmp_path / "store", interactive=True, seed=9, kills=1, json=False, console=console)
    assert result.ok
    assert result.published is answer
    assert bool(result.html) is answer


def test_json_is_one_object(tree: Path, tmp_path: Path):
    """With `json` nothing but the result is printed, as one object."""
    printed = io.StringIO()
    console = Console(file=printed, width=80)
    run_demo(tree, tmp_path / "store", interactive=False, seed=4, kills=1, json=True, console=console)
    data = json.loads(printed.getvalue())
    assert data["ok"] is True
    assert data["proof"]["steps"] == FILES + 3
    assert len(data["kills"]) == 1


def test_a_second_demo_on_the_same_store_is_a_run_of_its_own(tree: Path, tmp_path: Path):
    """A store that has had a demo takes another, with its own id, ledger and report; no kills are fine, too."""
    console = Console(quiet=True)
    ids = [
        run_demo(tree, tmp_path / "store", interactive=False, seed=5, kills=0, json=False, console=console).workflow_id
        for _ in range(2)
    ]
    assert ids == ["audit-1", "audit-2"]


def test_a_root_that_is_not_there_is_one_sentence(tmp_path: Path):
    """A wrong folder is refused before anything is started."""
    with pytest.raises(NotADirectoryError, match="not a folder"):
        run_demo(tmp_path / "gone", None, interactive=False, seed=6, json=False, console=Console(quiet=True))


def test_a_worker_that_cannot_work_is_reported(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When the worker ends by itself the demo says so, with the worker's last words."""
    monkeypatch.setattr("dalsegno.examples.demo_watch.WORKER", "dalsegno.examples.no_such_module")
    with pytest.raises(DemoFailed, match="No module named"):
        run_demo(tree, tmp_path / "store", interactive=False, seed=7, json=False, console=Console(quiet=True))


def test_code_that_does_not_fit_is_not_success(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """When replaying finds a difference, the demo is no success and shows it."""
    monkeypatch.setattr("dalsegno.examples.demo.verify", lambda store, ids: f"{len(ids)} runs diverge")
    printed = io.StringIO()
    console = Console(file=printed, width=100)
    result = run_demo(tree, tmp_path / "store", interactive=False, seed=8, kills=0, json=False, console=console)
    assert not result.ok
    assert "7 runs diverge" in printed.getvalue()
    assert "a promise was broken" in printed.getvalue()


def test_verifying_tells_what_does_not_fit(tmp_path: Path):
    """Verifying answers the reason as `replay verify` words it."""
    assert "holds no store" in verify(f"lmdb:{tmp_path / 'store'}", ["audit-9"])


def test_in_a_container_without_a_volume(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where every folder is a layer of a container the demo's own store is allowed to be on one."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 0:9 / / rw - overlay overlay rw\n")
    monkeypatch.setattr(lmdb_folder, "_MOUNTS", mounts)
    monkeypatch.delenv(lmdb_folder.ALLOW_REMOTE, raising=False)
    console = Console(quiet=True)
    result = run_demo(tree, tmp_path / "store", interactive=False, seed=6, kills=0, json=False, console=console)
    assert result.ok
    assert result.store == f"lmdb:{tmp_path / 'store'}?allow_remote=true"
