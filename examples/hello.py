"""Ten lines of workflow, a crash in the middle, and the resume.

$ python -m dalsegno.examples hello --crash     # dies while it greets Bob, as if the power went
Hello, Ada!
$ python -m dalsegno.examples hello             # goes on where it stood; Ada is not greeted again
Hello, Bob!
Hello, Cyd!
3 greeted
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from dalsegno import Engine, Flow, step, workflow


@step
def greet(name: str) -> int:
    """The work. Once it is recorded it never runs again."""
    before_greeting(name)
    print(f"Hello, {name}!", flush=True)
    return 1


@workflow
def greet_all(names: list[str]) -> Flow[int]:
    """An ordinary generator; each `yield from` is a point it can resume at."""
    greeted = 0
    for name in names:
        greeted += yield from greet(name)
    return greeted


def nothing(_: str) -> None:
    """What happens before a greeting on an ordinary day."""


def die_at_bob(name: str) -> None:
    """What happens on the day of the crash: no exception, no clean-up, no exit handlers."""
    if name == "Bob":
        os._exit(1)


before_greeting: Callable[[str], None] = nothing


def main() -> None:
    """Greet three people, durably."""
    global before_greeting
    parser = argparse.ArgumentParser(description="Greet three people, durably.")
    parser.add_argument("--store", default="lmdb:./hello-store", help="where to remember (default: %(default)s)")
    parser.add_argument("--crash", action="store_true", help="die half-way")
    options = parser.parse_args()
    before_greeting = die_at_bob if options.crash else nothing
    with Engine(options.store, workflows=[greet_all], steps=[greet]) as engine:
        run = engine.start(greet_all, ["Ada", "Bob", "Cyd"], id="hello")
        print(f"{run.result()} greeted")
