"""`dalsegno compact`: a small copy, and who has none."""

from __future__ import annotations

import json
from pathlib import Path

from dalsegno.core.store import open_store
from tests.core.bygone import bygone, grow
from tests.tools.conftest import Cli, everything


def test_the_copy_is_small_and_whole(run_dalsegno: Cli, tmp_path: Path):
    """After much was deleted the copy is smaller, and holds every run; the store itself stays as it is."""
    url = f"lmdb:{tmp_path}/store"
    with open_store(url) as store:
        made = grow(store, [bygone(f"run-{n}") for n in range(500)])
        store.purge([record.number for record in made.values()][:-20])
        before = everything(store)
    found = json.loads(run_dalsegno("compact", str(tmp_path / "copy"), "--store", url, "--json").stdout)
    assert found["copy"] == str(tmp_path / "copy")
    assert found["after"] == (tmp_path / "copy/data.mdb").stat().st_size < found["before"] / 2
    assert found["before"] == (tmp_path / "store/data.mdb").stat().st_size
    with open_store(f"lmdb:{tmp_path}/copy") as copy:
        assert everything(copy) == before
        assert copy.check() == []
    said = run_dalsegno("compact", str(tmp_path / "second"), "--store", url).stderr
    assert "% less" in said
    assert "stop everybody who uses the store" in said


def test_what_cannot_be_compacted(run_dalsegno: Cli, url: str, tmp_path: Path):
    """A folder that holds something, a store that is not there, and a kind of store that has no such thing."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    assert "is not empty" in run_dalsegno("compact", str(tmp_path / "full"), "--store", url, code=2).stderr
    run_dalsegno("compact", str(tmp_path / "copy"), "--store", f"lmdb:{tmp_path}/typo", code=3)
    with open_store(f"sqlite:{tmp_path}/shop.db"):
        pass
    said = run_dalsegno("compact", str(tmp_path / "copy"), "--store", f"sqlite:{tmp_path}/shop.db", code=2).stderr
    assert "needs no compacting" in said
    assert not (tmp_path / "copy").exists()
