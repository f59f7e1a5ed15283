"""A small app with queues, for the tests of the command line: what `--app tests.tools.mailer` loads."""

from __future__ import annotations

from dalsegno import All, Flow, Queue, Retry, step, workflow
from dalsegno.core.definitions import Definition

mail = Queue("mail", concurrency=2)


@step
def plain(number: int) -> int:
    return number + 1


@step(queue="mail", total_timeout=3600, retry=Retry(max_attempts=3, initial=3600))
def send(to: str) -> str:
    if to == "nobody":
        raise ConnectionError("nobody is there")
    return f"to {to}"


@workflow
def letters(names: list[str]) -> Flow[list[str]]:
    yield from plain(1)
    return (yield from All([send.options(key=name[0], priority=len(name) - 3)(name) for name in names]))


@workflow(queue="reports", key="a")
def report(number: int) -> Flow[int]:
    return (yield from plain(number))


STEPS: list[Definition] = [plain, send]
