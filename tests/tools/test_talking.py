"""A word to a run from a second terminal, with the code at hand."""

from __future__ import annotations

from pathlib import Path

from dalsegno import Client, Engine, Flow, NewCallback, Publish, workflow
from dalsegno.core.store import open_store
from tests.tools.conftest import Cli

APP = "tests.tools.shop"


@workflow
def promised() -> Flow[int]:
    promise = yield from NewCallback(int)
    yield from Publish("token", promise.token)
    return (yield from promise)


def inbox(url: str, id: str) -> list[str]:
    """The names of what waits in a run's inbox."""
    with open_store(url) as store:
        record = store.find(id)
        assert record is not None
        return [message.name for message in store.inbox(record.number)]


def test_a_name_that_nothing_waits_for_is_remarked_upon_and_sent(run_dalsegno: Cli, url: str):
    """It may be early, so it is taken, with a warning that says what is waited for."""
    done = run_dalsegno("signal", "order-3", "approvall", '{"granted": true}', "--app", APP, "--store", url)
    assert done.stderr == "warning: nothing in 'order-3' waits for this signal now, only for 'approval'; it is kept\n"
    assert done.stdout == "order-3: signal approvall is taken\n"
    assert "approvall" in inbox(url, "order-3")


def test_what_fits_is_sent_without_a_word(run_dalsegno: Cli, url: str):
    """And so is whatever comes without --app, where nobody can tell."""
    for app in (["--app", APP], []):
        done = run_dalsegno("signal", "order-3", "approval", '{"granted": true}', *app, "--store", url)
        assert (done.stderr, done.stdout) == ("", "order-3: signal approval is taken\n")
    assert inbox(url, "order-3").count("approval") == 2


def test_the_answer_to_a_callback_is_tried_first(run_dalsegno: Cli, tmp_path: Path):
    """A value that the callback's type cannot be made from is not sent, so that the right one still can be."""
    url = f"lmdb:{tmp_path / 'store'}"
    app = f"{__name__}:promised"
    with Engine(url, workflows=[promised]) as engine:
        run = engine.start(promised, id="p")
        while "token" not in run.state:
            pass
        token = run.state["token"]
    refused = run_dalsegno("complete", token, '"five"', "--app", app, "--store", url, code=4)
    assert "does not fit int" in refused.stderr
    assert "nothing was sent" in refused.stderr
    assert run_dalsegno("complete", token, "5", "--app", app, "--store", url).stdout == "p: complete is taken\n"
    with Engine(url, workflows=[promised]), Client(url) as client:
        assert client.get("p").result(timeout=10) == 5
