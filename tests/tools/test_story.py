"""A day with the command line: a deploy that does not fit, found, mended, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

from dalsegno import Engine, collect
from dalsegno.core.store import Status, open_store
from tests.tools import shop
from tests.tools.conftest import Cli

TODAY = "tests.tools.shop"
CHANGED = "tests.tools.shop_changed"


def status(url: str, id: str) -> Status:
    """How a run stands."""
    with open_store(url) as store:
        record = store.find(id)
        assert record is not None
        return record.status


def test_a_deploy_that_does_not_fit(run_replay: Cli, run_dalsegno: Cli, url: str):
    """Changed code blocks the open run and says why; the old code goes on with it where it stood."""
    run_dalsegno("terminate", "nap-1", "--store", url)
    run_dalsegno("signal", "order-3", "approval", '{"granted": true, "by": "ada"}', "--store", url)
    run_dalsegno("worker", "--app", CHANGED, "--store", url, "--until-done")
    assert status(url, "order-3") is Status.BLOCKED
    shown = run_replay("show", "order-3", "--store", url).stdout
    assert "left its recorded path at event" in shown
    assert "  recorded  step 'charge'" in shown
    assert json.loads(run_replay("ls", "--status", "blocked", "--store", url, "--json").stdout)["runs"]
    run_replay("verify", "--all", "--status", "open", "--app", TODAY, "--store", url)
    run_dalsegno("resume", "order-3", "--store", url)
    run_dalsegno("worker", "--app", TODAY, "--store", url, "--until-done")
    assert status(url, "order-3") is Status.COMPLETED
    run_replay("verify", "order-3", "--app", TODAY, "--store", url)
    run_replay("check", "--store", url)


def test_pause_and_resume(run_replay: Cli, run_dalsegno: Cli, url: str):
    """A paused run starts nothing until it is resumed, and both are in its history."""
    run_dalsegno("pause", "order-3", "--reason", "stocktaking", "--store", url)
    run_dalsegno("terminate", "nap-1", "--store", url)
    run_dalsegno("signal", "order-3", "approval", '{"granted": true}', "--store", url)
    run_dalsegno("worker", "--app", TODAY, "--store", url, "--until-done")
    assert status(url, "order-3") is Status.PAUSED
    run_dalsegno("resume", "order-3", "--store", url)
    run_dalsegno("worker", "--app", TODAY, "--store", url, "--until-done")
    assert status(url, "order-3") is Status.COMPLETED
    events = [
        event["event"] for event in json.loads(run_replay("show", "order-3", "--store", url, "--json").stdout)["events"]
    ]
    assert "RunPaused" in events
    assert "RunResumed" in events
    run_replay("verify", "order-3", "--app", TODAY, "--store", url)


def test_a_family_moves(run_replay: Cli, run_dalsegno: Cli, tmp_path: Path):
    """A parent and the child it waits for are moved to another store in flight, and finish there together."""
    here, there, file = f"lmdb:{tmp_path}/here", f"lmdb:{tmp_path}/there", str(tmp_path / "family.jsonl")
    with Engine(here, workflows=collect(shop)) as engine:
        engine.start(shop.deliver, 5, id="delivery-5")
        while engine.backend.find("order-5") is None or engine.get("order-5").state.get("stage") != "waiting":
            pass
    run_replay("export", "--all", file, "--store", here)
    run_replay("import", file, "--store", there)
    run_dalsegno("signal", "order-5", "approval", '{"granted": true}', "--store", there)
    run_dalsegno("worker", "--app", TODAY, "--store", there, "--until-done")
    assert status(there, "delivery-5") is Status.COMPLETED
    assert status(there, "order-5") is Status.COMPLETED
    run_replay("verify", "--all", "--app", TODAY, "--store", there)
    run_replay("check", "--store", there)
