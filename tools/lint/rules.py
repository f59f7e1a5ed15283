"""The rules of `replay lint`, as data: what each finds, why it matters, what to write instead, and an example of both.

The first ones come from `dalsegno.core.determinism`, which the determinism guard reads as well. docs/lint.md is made
from this table, and a test compares them:

    python -m dalsegno.tools.lint.rules > docs/lint.md
"""

from __future__ import annotations

from typing import Final

import attrs

from dalsegno.core.determinism import HAZARDS


@attrs.frozen
class Rule:
    """One thing that can be found. `bad` is code inside a workflow that is found, `good` what says the same soundly."""

    id: str
    title: str
    why: str
    instead: str
    bad: str
    good: str


_EXAMPLES: Final = {
    "clock": ("started = time.time()", "started = yield from Now()"),
    "sleep": ("time.sleep(60)", "yield from Sleep(60)"),
    "random": ("winner = random.choice(names)", "rng = yield from Random()\nwinner = rng.choice(names)"),
    "uuid": ("order_id = uuid.uuid4()", "order_id = yield from Uuid()"),
    "environment": (
        'region = os.environ["REGION"]',
        'region = yield from SideEffect(lambda: os.environ["REGION"])',
    ),
    "files": ("text = Path(name).read_text()", "text = yield from read_text(name)  # a @step"),
    "network": ("page = requests.get(url).text", "page = yield from fetch(url)  # a @step"),
    "process": ('subprocess.run(["make"])', "yield from build()  # a @step"),
    "threads": ("both = asyncio.gather(charge(a), charge(b))", "both = yield from All(charge(a), charge(b))"),
    "identity": ("key = hash(name)", "key = name"),
}

_ASKED: Final = tuple(
    Rule(hazard.rule, f"Asks {hazard.what}", hazard.why, hazard.instead, *_EXAMPLES[hazard.rule]) for hazard in HAZARDS
)

_WRITTEN: Final = (
    Rule(
        "global-state",
        "Reads or changes a variable of the module that changes while the program runs",
        "it is shared by all runs of the process, is gone after a restart, and is changed again by every replay",
        "a local variable, an argument, or what a @step returns",
        "SEEN.append(name)",
        "seen.append(name)  # a list made in the workflow",
    ),
    Rule(
        "set-order",
        "Depends on the order of a set",
        "strings hash differently in every process, so a replay meets the elements in another order",
        "`sorted(…)` around the set, or a dict or list, which keep their order",
        'for region in {"eu", "us"}:\n    yield from deploy(region)',
        'for region in sorted({"eu", "us"}):\n    yield from deploy(region)',
    ),
    Rule(
        "forgotten-yield",
        "Builds a command and does not yield it",
        "calling a @step, a @workflow, a helper or a command only says what is wanted; it runs when it is yielded",
        "`yield from` before the call (`await` in an `async def` workflow)",
        "charge(order)",
        "yield from charge(order)",
    ),
    Rule(
        "alien-yield",
        "Yields what is not a command",
        "the interpreter takes only commands, so the run would be blocked here",
        "`yield from helper(…)` for a generator; `All([…])` for several commands; a call of the step, not the step",
        "yield refund_all(order)  # a generator function",
        "yield from refund_all(order)",
    ),
    Rule(
        "swallowed-cancel",
        "Catches `Cancelled` together with everything else",
        "a cancellation is raised at a yield, once; caught here it is gone, and the run goes on as if nobody had asked",
        "the errors that are expected by name, or `except Cancelled: raise` before it",
        "try:\n    yield from charge(order)\nexcept Exception:\n    pass",
        "try:\n    yield from charge(order)\nexcept ConnectionError:\n    pass",
    ),
    Rule(
        "finally-yield",
        "Cleans up in several steps that a cancellation can interrupt",
        "a cancellation that arrives while `finally` is at work is raised at its first yield, and the rest is not done",
        "`yield from Shield(clean_up())`, with all of it in one generator",
        "try:\n    yield from deploy()\nfinally:\n    yield from stop()\n    yield from refund_all(order)",
        "try:\n    yield from deploy()\nfinally:\n    yield from Shield(clean_up())",
    ),
    Rule(
        "bad-ignore",
        "A comment that excuses without a reason, or names no rule there is",
        "whoever reads it later cannot tell whether it still holds",
        "`# dalsegno: ignore[rule] the reason`",
        "x = id(order)  # dalsegno: ignore[identity]",
        "x = id(order)  # dalsegno: ignore[identity] compared with itself, in this process only",
    ),
    Rule(
        "unused-ignore",
        "A comment that excuses what is not there",
        "it would hide a finding that somebody makes later",
        "nothing: take the comment away",
        "x = 1  # dalsegno: ignore[clock] it was needed once",
        "x = 1",
    ),
)

RULES: Final = {rule.id: rule for rule in (*_ASKED, *_WRITTEN)}
"""Every rule, by its id."""

_HEAD: Final = """\
# What `replay lint` finds

<!-- Made by `python -m dalsegno.tools.lint.rules`; a test compares it with the table there. -->

`replay lint PATH…` reads source files and folders, `replay lint package.module` a module; nothing is imported or run.
It looks only at code that runs inside workflows: functions decorated with `@workflow`, `async def` ones too, and the
plain functions and generator helpers of the same module that they call. Steps may do as they like.

A finding is excused by a comment on its line, or alone on the line above, that names the rule and gives the reason:

```python
key = hash(name)  # dalsegno: ignore[identity] a cache of this process; nothing is decided by it
```

`--json` prints the findings for a script, `--sarif` in the form that code hosts and editors read. Exit codes: 0 nothing
was found, 1 something was, 2 a file could not be read or is not Python.

What source alone cannot tell (a callback handed in, a method of an object made elsewhere) the determinism guard catches
as it happens: see [Testing](testing.md#nondeterminism-the-guard-and-the-lint).

| rule | finds |
|---|---|
"""


def document() -> str:
    """The text of docs/lint.md."""
    rows = "".join(f"| [`{rule.id}`](#{rule.id}) | {rule.title} |\n" for rule in RULES.values())
    return _HEAD + rows + "".join(_section(rule) for rule in RULES.values())


def _section(rule: Rule) -> str:
    return (
        f"\n## {rule.id}\n\n{rule.title}: {rule.why}.\n\n"
        f"```python\n{rule.bad}\n```\n\nInstead: {rule.instead}.\n\n```python\n{rule.good}\n```\n"
    )


if __name__ == "__main__":
    print(document(), end="")
