"""JSON is held against what a run waits for before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Client, Codec, DecodeError, Engine, Flow, NewCallback, Publish, Receive, Run, collect, workflow
from dalsegno.core.interpreter import parse_token
from dalsegno.core.store import Backend, RunRecord, open_store
from dalsegno.tools.app import App, load_app
from dalsegno.tools.fitting import check_answer, check_signal
from tests.tools import shop

SHOP = load_app("tests.tools.shop")


@dataclass(frozen=True)
class Answer:
    yes: bool


@workflow
def asking() -> Flow[bool]:
    promise = yield from NewCallback(Answer)
    yield from Publish("token", promise.token)
    return (yield from promise).yes


ASKING = App("asking", {"asking": asking}, {}, Codec())


def found(store: Backend, id: str) -> RunRecord:
    record = store.find(id)
    assert record is not None
    return record


def test_a_payload_that_fits_is_let_through(store: Backend):
    """What the `Receive` can make its type of is not remarked upon."""
    assert check_signal(store, found(store, "order-3"), "approval", {"granted": True}, SHOP) == ""


@pytest.mark.parametrize(
    "payload", [None, {"granted": "perhaps"}, {"by": "ada"}, {"granted": True, "colour": 1}, [True]]
)
def test_a_payload_that_does_not_fit_is_refused(store: Backend, payload: Any):
    """The error names the type, the place in it, the line that waits, and that nothing was sent."""
    with pytest.raises(DecodeError, match=r"does not fit Approval: .*value") as raised:
        check_signal(store, found(store, "order-3"), "approval", payload, SHOP)
    assert raised.value.__notes__[-1] == "('order-3' waits for the signal 'approval' at shop.py:45; nothing was sent)"


def test_a_name_that_nothing_waits_for_is_remarked_upon(store: Backend):
    """A signal may come before its `Receive`, so it is kept; but the likely slip is said."""
    said = check_signal(store, found(store, "order-3"), "approvall", {"granted": "perhaps"}, SHOP)
    assert said == "nothing in 'order-3' waits for this signal now, only for 'approval'; it is kept"


@pytest.mark.parametrize("id", ["nap-1", "order-1", "both-1", "nobody"])
def test_what_the_code_cannot_tell_is_not_judged(store: Backend, id: str):
    """A run that waits for no signal, that has ended, or that is not there."""
    assert check_signal(store, store.find(id), "approval", "anything", SHOP) == ""


def test_another_signal_that_comes_first_is_not_judged_twice(store: Backend):
    """With one of its name in the inbox, who will take the next one is not known."""
    with Client(store) as client:
        client.get("order-3").signal_json("approval", {"granted": True})
    assert check_signal(store, found(store, "order-3"), "approval", "anything", SHOP) == ""


def test_code_that_has_changed_is_no_judge(store: Backend):
    """Where the history does not fit today's code, the signal is for whoever mends it."""

    @workflow
    def fulfil(order: object, gift: bool = False) -> Flow[None]:
        yield from Receive("approval", int)

    changed = App("changed", {"fulfil": fulfil}, {}, Codec())
    assert check_signal(store, found(store, "order-3"), "approval", "anything", changed) == ""
    assert check_signal(store, found(store, "order-3"), "approval", "anything", App("none", {}, {}, Codec())) == ""


def test_the_answer_to_a_callback(tmp_path: Path):
    """A value is held against the callback's type as well."""
    with Engine(f"lmdb:{tmp_path / 'store'}", workflows=[asking]) as engine:
        run: Run[bool] = engine.start(asking, id="q")
        while "token" not in run.state:
            pass
        said = parse_token(run.state["token"])
        record = run.record
        check_answer(engine.backend, record, said.id, {"yes": True}, ASKING)
        with pytest.raises(DecodeError, match="does not fit Answer") as raised:
            check_answer(engine.backend, record, said.id, "yes", ASKING)
        assert "waits for the callback" in raised.value.__notes__[-1]
        engine.complete_json(run.state["token"], {"yes": True})
        assert run.result(timeout=10) is True


def test_a_store_of_the_shop_is_what_is_meant(url: str):
    """The store is opened for reading only: nothing is written to find out."""
    with open_store(url, read_only=True) as store:
        before = store.changes()
        check_signal(store, found(store, "order-3"), "approval", {"granted": True}, SHOP)
        assert store.changes() == before
    assert {definition.name for definition in collect(shop)} >= {"fulfil"}
