"""Bad input on the command line: a specific sentence, the right exit code, nothing recorded, no traceback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno import Engine, collect
from dalsegno.core.store import open_store
from tests.tools import shop
from tests.tools.conftest import Cli, everything

APP = "tests.tools.shop"
Spoil = Callable[[Path], object]


def refused(call: Cli, *args: str, code: int, says: str) -> None:
    """The command ends with this code and says this on stderr, and nothing else anywhere."""
    result = call(*args, code=code)
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


# --- the store -----------------------------------------------------------------------------------------------------


def cut_short(folder: Path) -> None:
    os.truncate(folder / "data.mdb", 3 * 4096)


def overwritten(folder: Path) -> None:
    (folder / "data.mdb").write_bytes(b"not a database at all" * 1000)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


BAD_STORES: dict[str, tuple[Spoil, str]] = {
    "missing": (shutil.rmtree, "holds no store"),
    "empty": (emptied, "holds no store"),
    "a file": (replaced_by_a_file, "holds no store"),
    "cut short": (cut_short, "was cut short"),
    "overwritten": (overwritten, "cannot be opened"),
}


@pytest.mark.parametrize("spoiled", BAD_STORES, ids=str)
@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["show", "order-1"],
        ["check"],
        ["stats"],
        ["verify", "--all", "--app", APP],
        ["diff", "order-1", "order-2"],
    ],
    ids=lambda command: command[0],
)
def test_looking_at_a_bad_store(spoiled: str, command: list[str], run_replay: Cli, folder: Path):
    """Every reading command says what is wrong with the store, with exit code 3, and makes nothing."""
    spoil, says = BAD_STORES[spoiled]
    spoil(folder)
    there = folder.exists()
    refused(run_replay, *command, "--store", f"lmdb:{folder}", code=3, says=says)
    assert folder.exists() is there
    assert not folder.is_dir() or "lock.mdb" not in os.listdir(folder) or spoiled not in ("empty", "missing")


@pytest.mark.parametrize("spoiled", ["missing", "cut short", "overwritten"])
def test_talking_to_a_bad_store(spoiled: str, run_dalsegno: Cli, folder: Path):
    """A signal to a store that is not there makes none."""
    spoil, says = BAD_STORES[spoiled]
    spoil(folder)
    refused(run_dalsegno, "signal", "order-3", "x", "--store", f"lmdb:{folder}", code=3, says=says)
    assert folder.exists() is (spoiled != "missing")


def test_a_store_that_another_engine_works_on(run_dalsegno: Cli, run_replay: Cli, tmp_path: Path):
    """Where a kind of store takes one engine, a second worker is told who works there; looking and talking go on."""
    url = f"sqlite:{tmp_path}/shop.db"
    with Engine(url, workflows=collect(shop)) as engine:
        engine.start(shop.nap, timedelta(days=1), id="nap-1")
        refused(run_dalsegno, "worker", "--app", APP, "--store", url, code=3, says="has an engine already")
        run_replay("ls", "--store", url)
        run_dalsegno("signal", "nap-1", "x", "--store", url)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("orders", "write 'lmdb:orders'"),
        ("mysql://host/db", "no store is registered for 'mysql'"),
        ("memory:", "inside one process"),
        ("lmdb:", "names no folder"),
        ("lmdb:x?durability=none", "durability"),
    ],
)
def test_store_urls(given: str, says: str, run_replay: Cli, run_dalsegno: Cli):
    """A URL that names no store is explained, whatever the command."""
    refused(run_replay, "ls", "--store", given, code=2, says=says)
    refused(run_dalsegno, "start", "nap", "--store", given, code=2, says=says)


def test_no_store_named(run_replay: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without --store, variable and folder the command asks which store is meant."""
    monkeypatch.chdir(tmp_path)
    refused(run_replay, "ls", code=2, says="which store?")


# --- runs, ids, payloads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["show", "order-99"], 1, "no run has the id 'order-99'"),
        (["show", "order"], 1, "there is order-3, order-2, order-1"),
        (["show", "order-1#7"], 1, "there is order-1"),
        (["show", "a\x1b[2J"], 1, "'a\\x1b[2J'"),
        (["show", "a\0b"], 1, "'a\\x00b'"),
        (["show", "x" * 600], 1, "xxx…"),
        (["show", "order-1", "--around", "-1"], 2, "--around"),
        (["diff", "order-1", "nobody"], 1, "no run has the id"),
        (["ls", "--status", "asleep"], 2, "'asleep' is not one of"),
        (["ls", "--age", "old"], 2, "write 90s"),
        (["ls", "--tag", "eu"], 2, "write key=value"),
        (["ls", "--limit", "0"], 2, "--limit"),
        (["show"], 2, "Missing argument"),
        (["erase"], 2, "No such command"),
        (["export", "order-1"], 2, "name the runs"),
        (["show", "order-1", "--html", "x" * 600], 2, "File name too long: "),
        (["show", "order-1", "--html", "no/such/folder/page.html"], 2, "there is no folder"),
        (["export", "order-1", "x" * 600], 2, "File name too long: "),
        (["import", "x" * 600], 4, "cannot be read: File name too long"),
        (["lint", "x" * 600], 2, "too long"),
        (["fork", "order-1", "--at", "2", "--dry-run", "--app", APP, "--answers", "x" * 600], 2, "too long"),
    ],
)
def test_replay_refuses(command: list[str], code: int, says: str, run_replay: Cli, url: str):
    """What `replay` cannot find or understand is said with what to do."""
    refused(run_replay, *command, *([] if command[0] == "lint" else ["--store", url]), code=code, says=says)


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["start", "fulfil", "not json", "--app", APP], 2, "is not JSON"),
        (["start", "fulfil", "[" * 100_000, "--app", APP], 2, "nested too deep"),
        (["start", "fulfil", '"' + "x" * 70_000_000 + '"'], 4, "the limit is"),
        (["start", "fulfil", "--app", APP], 2, "missing a required argument: 'order'"),
        (["start", "fulfil", "1", "2", "3", "--app", APP], 2, "too many positional"),
        (["start", "fulfil", '{"id": "x"}', "--app", APP], 4, "does not fit Order"),
        (["start", "fulfil", '{"id": 1, "colour": "red"}', "--app", APP], 4, "colour"),
        (["start", "fulfil", '{"id": 1}', "--kw", "gift", "--app", APP], 2, "key=value"),
        (["start", "fulfil", '{"id": 1}', "--kw", "gift=maybe", "--app", APP], 2, "is not JSON"),
        (["start", "fulfill", '{"id": 1}', "--app", APP], 1, "it has both, deliver, fulfil"),
        (["start", "nap", "--id", "a\0b"], 2, "cannot be a workflow id"),
        (["start", "nap", "--id", ""], 2, "cannot be a workflow id"),
        (["start", "nap", "--id", "x" * 5000], 2, "cannot be a workflow id"),
        (["start", "nap", "--id", "a\udcff"], 2, "is not UTF-8"),
        (["start", "nap", "--tag", "a=\udcff"], 2, "is not UTF-8"),
        (["start", "nap", "5", "--id", "order-1"], 1, "is taken"),
        (["signal", "nobody", "x"], 1, "no run"),
        (["signal", "order-3", ""], 2, "name is empty"),
        (["signal", "order-3", "x", "{"], 2, "is not JSON"),
        (["signal", "order-3", "approval", '{"granted": "yes"}', "--app", APP], 4, "does not fit Approval"),
        (["signal", "order-3", "approval", "--app", APP], 4, "at shop.py:45; nothing was sent"),
        (["signal", "order-1", "x"], 1, "has ended (completed)"),
        (["cancel", "order-3", "--reason", "\udcff"], 2, "is not UTF-8"),
        (["worker", "--app", "no.such.module"], 2, "there is no module 'no'"),
    ],
    ids=lambda value: (
        " ".join(value)[:40].replace("\0", "NUL").replace("\udcff", "bytes") if isinstance(value, list) else None
    ),
)
def test_dalsegno_refuses(command: list[str], code: int, says: str, run_dalsegno: Cli, url: str):
    """What `dalsegno` cannot do is said with what to do, and the store stays as it was."""
    with open_store(url) as store:
        before = everything(store), store.changes()
    refused(run_dalsegno, *command, "--store", url, code=code, says=says)
    with open_store(url) as store:
        assert (everything(store), store.changes()) == before
