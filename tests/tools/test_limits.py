"""Limits of queues, as they are typed and shown."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.shell_completion import CompletionItem

from dalsegno import BadOption, Queue, Rate
from dalsegno.core.store import open_store
from dalsegno.tools.limits import Change, LimitsOf, changed, parse_change, written

TYPED: dict[str, dict[str, Any]] = {
    "mail=concurrency:2": {"concurrency": 2},
    "mail=per-key:1,concurrency:2": {"per_key": 1, "concurrency": 2},
    "mail=rate:10/60": {"rate": Rate(count=10, per=60)},
    "mail=rate:10/1m": {"rate": Rate(count=10, per=60)},
    "mail=rate:5/0.5": {"rate": Rate(count=5, per=0.5)},
    "mail=concurrency:none": {"concurrency": None},
    "mail=none": {"concurrency": None, "per_key": None, "rate": None},
}


@pytest.mark.parametrize("text", TYPED)
def test_what_is_typed(text: str):
    """Each form says what it looks like, and what is not named is left as it is."""
    assert parse_change(text) == Change("mail", TYPED[text])


@pytest.mark.parametrize(
    "text",
    ["mail", "=none", "mail=", "mail=fast", "mail=rate:10", "mail=rate:/1s", "mail=rate:0/1s", "mail=rate:1/soon",
     "mail=concurrency:0", "mail=concurrency:-1", "mail=concurrency:two", "mail=workers:2", "ma\nil=none"],
)  # fmt: skip
def test_what_cannot_be_meant(text: str):
    """What is no limit is refused with a sentence that acts on no terminal."""
    with pytest.raises(BadOption) as refused:
        parse_change(text)
    assert str(refused.value).isprintable()


def test_a_change_leaves_the_rest():
    """What is said on the command line goes over what the app declares, limit by limit."""
    app = [Queue("mail", concurrency=2, per_key=1), Queue("gpu", concurrency=1)]
    said = [parse_change("mail=concurrency:5"), parse_change("mail=rate:1/1s"), parse_change("disk=per-key:3")]
    assert changed(app, said) == [
        Queue("mail", concurrency=5, per_key=1, rate=Rate(count=1)),
        Queue("gpu", concurrency=1),
        Queue("disk", per_key=3),
    ]


@pytest.mark.parametrize(
    "queue",
    [Queue("mail"), Queue("a=b", concurrency=3), Queue("m", per_key=2, rate=Rate(count=7, per=0.25)),
     Queue("m", rate=Rate(count=100, per=86400))],
)  # fmt: skip
def test_what_is_shown_can_be_typed(queue: Queue):
    """Limits are shown the way they are typed."""
    assert parse_change(f"{queue.name}={written(queue)}").of(Queue(queue.name)) == queue


def test_completion(url: str):
    """A shell is offered the queues of the store, and then the limits."""
    with open_store(url) as store:
        store.declare([Queue("mail"), Queue("maps")])

    def offered(incomplete: str) -> list[str]:
        context = click.Context(click.Command("queues"))
        context.params["store"] = url
        items: list[CompletionItem] = LimitsOf().shell_complete(context, click.Option(["--set"]), incomplete)
        return [item.value for item in items]

    assert offered("ma") == ["mail=", "maps="]
    assert offered("mail=") == ["mail=concurrency:", "mail=per-key:", "mail=rate:", "mail=none"]
    assert offered("mail=rate:1/1s,p") == ["mail=rate:1/1s,per-key:"]
