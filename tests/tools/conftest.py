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
from dalsegno.core.store import Backend, NewRun, open_store
from dalsegno.tools import operate, replay
from tests.tools import shop
from tests.tools.schemas import hold_output

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


@pytest.fixture
def half(url: str) -> str:
    """A store with a run whose third event was written by a later release."""
    with open_store(url) as store:
        record = store.find("order-2")
        assert record is not None
        events = store.history(record.number)
        broken = NewRun(
            workflow_id="half-1",
            workflow="fulfil",
            events=(*events[:2], b"\x92\xcd\x27\x0f\x01", *events[2:]),
            created_at_us=record.created_at_us,
            digest=record.digest,
        )
        store.create([broken])
    return url


def caller(program: str, command: click.Command, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A function that calls a command in this process; what is not a known failure comes out of it, and what it prints
    with --json is held against its documented form."""
    monkeypatch.delenv("DALSEGNO_STORE", raising=False)

    def call(*args: str, code: int = 0, stdin: bytes = b"", **env: str) -> Result:
        result = CliRunner(env={"COLUMNS": "160"} | env).invoke(command, list(args), stdin, catch_exceptions=False)
        assert result.exit_code == code, result.output
        hold_output(program, args, result.stdout)
        return result

    return call


@pytest.fixture
def run_replay(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The `replay` command."""
    return caller("replay", replay.main, monkeypatch)


@pytest.fixture
def run_dalsegno(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The `dalsegno` command."""
    return caller("dalsegno", operate.main, monkeypatch)


def everything(store: Backend) -> dict[str, tuple[bytes, ...]]:
    """Every history in a store, byte for byte."""
    return {record.run_id: tuple(store.history(record.number)) for record in store.runs()}
