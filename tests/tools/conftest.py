"""A store with histories of every kind, made once by the engine, and the command line in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dalsegno import Client, Engine, Run, collect
from dalsegno.core.store import Backend, open_store
from dalsegno.tools import operate, replay
from tests.tools import shop

Cli = Callable[..., Result]


def until_charged(run: Run[str]) -> None:
    """Look until the first step is recorded, so that histories are the same each time."""
    while len(run.history()) < 2:
        pass


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store that nobody has open: two orders done, one waiting with a signal unread, a failed run, a
    sleeping one, and a parent with children."""
    folder = tmp_path_factory.mktemp("tools") / "store"
    with Engine(f"lmdb:{folder}", workflows=collect(shop)) as engine:
        for number, by in ((1, "ada"), (2, "bob")):
            run = engine.start(shop.fulfil, shop.Order(number), id=f"order-{number}", tags={"region": "eu"})
            until_charged(run)
            run.signal("approval", shop.Approval(True, by))
            run.result(timeout=10)
        waiting = engine.start(shop.fulfil, shop.Order(3), id="order-3", tags={"region": "us"})
        until_charged(waiting)
        waiting.signal("unasked", {"note": "nobody receives this"})
        failed = engine.start(shop.stocktaking, "top", id="stock-1")
        assert failed.id == "stock-1"
        with pytest.raises(ValueError, match="is empty"):
            failed.result(timeout=10)
        engine.start(shop.nap, timedelta(days=3), id="nap-1")
        engine.start(shop.both, 7, 8, id="both-1").result(timeout=10)
    with Client(f"lmdb:{folder}") as client:  # nobody works on the store: this stays in the inbox
        client.get("order-3").signal_json("late")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of that store, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture
def url(folder: Path) -> str:
    """The URL of that copy."""
    return f"lmdb:{folder}"


@pytest.fixture
def store(url: str) -> Any:
    """That copy, open."""
    with open_store(url) as opened:
        yield opened


def caller(command: click.Command, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A function that calls a command in this process; what is not a known failure comes out of it."""
    monkeypatch.delenv("DALSEGNO_STORE", raising=False)

    def call(*args: str, code: int = 0, **env: str) -> Result:
        result = CliRunner(env={"COLUMNS": "160"} | env).invoke(command, list(args), catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def run_replay(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The `replay` command."""
    return caller(replay.main, monkeypatch)


@pytest.fixture
def run_dalsegno(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The `dalsegno` command."""
    return caller(operate.main, monkeypatch)


def everything(store: Backend) -> dict[str, tuple[bytes, ...]]:
    """Every history in a store, byte for byte."""
    return {record.run_id: tuple(store.history(record.number)) for record in store.runs()}
