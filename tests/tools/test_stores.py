"""Which store is meant, and which run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalsegno import Engine, collect
from dalsegno.core.errors import BadOption, RunNotFound, StoreUnusable
from dalsegno.core.store import Backend
from dalsegno.tools.stores import all_runs, find_run, open_for_reading, store_url
from dalsegno.tools.transfer import BadHistoryFile
from tests.tools import shop
from tests.tools.conftest import Cli


def test_the_store_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is given, then the variable, then the nearest folder .dalsegno, then a question; or one is to be made."""
    deep = tmp_path / "a/b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.delenv("DALSEGNO_STORE", raising=False)
    with pytest.raises(BadOption, match="which store"):
        store_url()
    assert store_url(make=True) == f"lmdb:{deep}/.dalsegno"
    (tmp_path / ".dalsegno").mkdir()
    assert store_url() == f"lmdb:{tmp_path}/.dalsegno"
    assert store_url(make=True) == f"lmdb:{tmp_path}/.dalsegno"
    monkeypatch.setenv("DALSEGNO_STORE", "lmdb:elsewhere")
    assert store_url() == "lmdb:elsewhere"
    assert store_url("lmdb:given") == "lmdb:given"


def test_looking_writes_nothing(folder: Path):
    """A store opened to look at refuses to be written, and stays as it was."""
    before = (folder / "data.mdb").read_bytes()
    with open_for_reading(f"lmdb:{folder}") as store:
        assert len(store.runs()) == 8
        with pytest.raises(StoreUnusable, match="reading only"):
            store.send([], 0)
    assert (folder / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("scheme", ["lmdb", "sqlite", "file"])
def test_looking_makes_no_store(scheme: str, tmp_path: Path, run_replay: Cli, run_dalsegno: Cli):
    """A store that is not there is refused by what reads and by what sends, whatever its kind, and is not made."""
    url = f"{scheme}:{tmp_path}/typo"
    with pytest.raises((StoreUnusable, BadHistoryFile)):
        open_for_reading(url)
    code = 4 if scheme == "file" else 3  # it is the file that cannot be read
    assert str(tmp_path / "typo") in run_replay("ls", "--store", url, code=code).stderr
    run_dalsegno("signal", "order-1", "approval", "--store", url, code=code)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_kind_is_read_as_well(tmp_path: Path, run_replay: Cli):
    """Reading commands work on SQLite beside its engine, and cannot write to it."""
    url = f"sqlite:{tmp_path}/shop.db"
    with Engine(url, workflows=collect(shop)) as engine:
        engine.start(shop.quick, 1, id="quick-1").result(timeout=10)
        assert "quick-1" in run_replay("ls", "--store", url).stdout
        with open_for_reading(url) as store, pytest.raises(StoreUnusable, match="reading only"):
            store.purge([1])
    assert "receipt 1" in run_replay("show", "quick-1", "--store", url).stdout


def test_runs_by_what_people_type(store: Backend):
    """An id is its newest run, id#1 that one; an unknown one proposes what is alike."""
    assert find_run(store, "order-1").run_id == "order-1#1"
    assert find_run(store, "order-1#1").workflow_id == "order-1"
    for name, alike in (("order", "order-3, order-2, order-1"), ("rder-2", "order-2"), ("zzz", "`replay ls` lists")):
        with pytest.raises(RunNotFound, match=alike):
            find_run(store, name)


def test_an_id_that_looks_like_a_run_id(store: Backend):
    """An id that itself ends in #1 is found first."""
    child = next(record for record in store.runs() if record.parent)
    assert find_run(store, child.workflow_id).number == child.number


def test_pages(store: Backend, monkeypatch: pytest.MonkeyPatch):
    """All runs come, a page at a time, each once."""
    monkeypatch.setattr("dalsegno.tools.stores.PAGE", 3)
    numbers = [record.number for record in all_runs(store)]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 8
