"""Limits of queues as they are written on a command line, and shown in tables: `mail=concurrency:2,rate:10/60s`.

mail=concurrency:2               at most 2 at work at a time, over all workers
mail=per-key:1                   at most 1 of each key
mail=rate:10/60s                 at most 10 begun in every minute (rate:10/60 and rate:10/1m say the same)
mail=concurrency:2,per-key:1     several
mail=concurrency:none            no such limit; what is not named stays as it is
mail=none                        no limits at all
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import attrs
import click
from click.shell_completion import CompletionItem

from dalsegno.core.errors import BadOption
from dalsegno.core.queues import Queue, Rate
from dalsegno.tools.options import Name
from dalsegno.tools.proposing import queues_like
from dalsegno.tools.text import clean, parse_age

FIELDS: Final = {"concurrency": "concurrency", "per-key": "per_key", "rate": "rate"}
NONE: Final = "none"
FORM: Final = "write NAME=concurrency:N,per-key:N,rate:N/60s, as many of them as you mean, or NAME=none"


@attrs.frozen
class Change:
    """What is to be another limit of a queue: by field of `Queue`, None where there is to be none."""

    name: str
    limits: Mapping[str, Any]

    def of(self, queue: Queue) -> Queue:
        """That queue with these limits."""
        return attrs.evolve(queue, **self.limits)


def changed(queues: Iterable[Queue], changes: Sequence[Change]) -> list[Queue]:
    """Queues with what was changed about them, one that is only changed with just these limits.

    >>> changed([Queue("mail", per_key=1)], [Change("mail", {"concurrency": 2}), Change("gpu", {"concurrency": 1})])
    [Queue(name='mail', concurrency=2, per_key=1, rate=None), Queue(name='gpu', concurrency=1, per_key=None, rate=None)]
    """
    found = {queue.name: queue for queue in queues}
    for change in changes:
        found[change.name] = change.of(found.get(change.name, Queue(change.name)))
    return list(found.values())


def parse_change(text: str) -> Change:
    """What `NAME=LIMITS` says. Raises `BadOption`.

    >>> parse_change("mail=concurrency:2,rate:10/60s").limits
    {'concurrency': 2, 'rate': Rate(count=10, per=60.0)}
    >>> parse_change("a=b=none").name
    'a=b'
    """
    name, equals, said = text.rpartition("=")
    if not equals:
        raise BadOption(f"'{clean(text, 80)}' says no limits: {FORM}")
    name = Queue(name).name
    if said == NONE:
        return Change(name, dict.fromkeys(FIELDS.values()))
    limits: dict[str, Any] = {}
    for part in said.split(","):
        field, colon, value = part.partition(":")
        if field not in FIELDS or not colon:
            raise BadOption(f"'{clean(part, 40)}' in '{clean(text, 80)}' is no limit: {FORM}")
        limits[FIELDS[field]] = _value(field, value)
    Queue(name, **limits)  # refuses what cannot be meant
    return Change(name, limits)


def _value(field: str, value: str) -> Any:
    if value == NONE:
        return None
    if field == "rate":
        return _rate(value)
    if not value.isdecimal():
        raise BadOption(f"{field}:{clean(value, 40)}: takes a whole number from 1 on, or none")
    return int(value)


def _rate(value: str) -> Rate:
    count, slash, per = value.partition("/")
    try:
        seconds = float(per) if per.replace(".", "", 1).isdecimal() else parse_age(per) / 1e6
        if not (slash and count.isdecimal()):
            raise ValueError
    except ValueError:
        raise BadOption(
            f"rate:{clean(value, 40)}: takes how many in how long, like rate:10/60s or rate:100/1h"
        ) from None
    return Rate(count=int(count), per=seconds)


def written(queue: Queue) -> str:
    """The limits of a queue as they would be typed.

    >>> written(Queue("mail", concurrency=2, rate=Rate(count=10, per=0.5))), written(Queue("gpu"))
    ('concurrency:2,rate:10/0.5s', 'none')
    """
    said = [f"{word}:{value}" for word in ("concurrency", "per-key") if (value := getattr(queue, FIELDS[word]))]
    if queue.rate is not None:
        per = f"{queue.rate.per:f}".rstrip("0").rstrip(".")
        said.append(f"rate:{queue.rate.count}/{per}s")
    return ",".join(said) or NONE


class LimitsOf(Name):
    """Limits of a queue, `mail=concurrency:2`. The queue is completed from the store, then the words."""

    name = "name=limits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Change:
        if isinstance(value, Change):
            return value
        try:
            return parse_change(super().convert(value, param, ctx))
        except BadOption as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        _, equals, said = incomplete.rpartition("=")
        if equals:
            before, _, last = said.rpartition(",")
            words = [f"{word}:" for word in FIELDS] + ([] if before else [NONE])
            start = incomplete[: len(incomplete) - len(last)]
            return [CompletionItem(start + word) for word in words if word.startswith(last)]
        with suppress(Exception):  # a shell that completes has no use for an error
            return [CompletionItem(f"{one}=") for one in queues_like(ctx.params.get("store"), incomplete)]
        return []
