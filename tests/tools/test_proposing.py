"""What a shell is offered: runs, tags and stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalsegno.core.store import NewRun, open_store
from dalsegno.tools import proposing
from dalsegno.tools.proposing import looked_through, runs_like, urls_like
from dalsegno.tools.stores import PAGE
from tests.tools.test_help import completions
from tests.tools.test_transfer import started


def test_runs_behind_the_first_page_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An id that begins so is found behind thousands of newer ones, as long as there is time; itself in any case."""
    url = f"lmdb:{tmp_path}/many"
    ids = ["old-1", "old-2", *(f"new-{number}" for number in range(PAGE + 200))]
    with open_store(url) as store:
        store.create(
            [NewRun(workflow_id=id, workflow="nap", events=started(id), created_at_us=0, digest=b"") for id in ids]
        )
    monkeypatch.setattr(proposing, "LOOK_S", 60.0)
    assert list(runs_like(url, "old")) == ["old-2", "old-1"]
    assert completions("replay", "show", "--store", url, "old-") == ["old-2", "old-1"]
    monkeypatch.setattr(proposing, "LOOK_S", 0.0)
    assert list(runs_like(url, "old")) == []
    assert list(runs_like(url, "old-1")) == ["old-1"]
    assert len(list(looked_through(iter([])))) == 0


def test_tags_are_completed(url: str):
    """The tags that runs of the store carry, each once."""
    assert completions("replay", "ls", "--store", url, "--tag", "") == ["region=eu", "region=us"]
    assert completions("replay", "ls", "--store", url, "--tag", "region=u") == ["region=us"]
    assert completions("replay", "ls", "--store", "lmdb:/nowhere", "--tag", "") == []


def test_stores_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """First the kind, then what lies on this machine: folders, and files where those are meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "inner").mkdir()
    (tmp_path / "one.jsonl").touch()
    assert completions("replay", "ls", "--store", "") == ["archive:", "file:", "lmdb:", "postgresql:"]
    assert urls_like("lmdb:") == ["lmdb:orders"]
    assert urls_like("file:o") == ["file:one.jsonl", "file:orders/"]
    assert urls_like(f"lmdb:{tmp_path}/orders/in") == [f"lmdb:{tmp_path}/orders/inner"]
    assert urls_like("postgresql://") == []
    assert completions("replay", "ls", "--store", "lmdb:nowhere/") == []
    assert completions("replay", "diff", "--other", "lmdb:o") == ["lmdb:orders"]
