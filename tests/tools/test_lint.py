"""`replay lint`: every rule finds its own example and passes what it says to write instead; and it is precise."""

from __future__ import annotations

import textwrap

import pytest

from dalsegno.core.determinism import HAZARDS
from dalsegno.tools.lint.linting import Finding, lint_text
from dalsegno.tools.lint.rules import RULES, Rule

HEAD = """
import asyncio, os, random, subprocess, time, uuid, requests
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from dalsegno import *
from dalsegno import Cancelled, step, workflow

SEEN = []

@step
def charge(order): ...
@step
def deploy(*args): ...
@step
def stop(): ...
@step
def build(): ...
@step
def fetch(url): ...
@step
def read_text(name): ...

def remember(name):
    SEEN.append(name)

def refund_all(order):
    yield from charge(order)

def clean_up():
    yield from stop()
    yield from refund_all(1)
"""


def inside(body: str, kind: str = "def") -> list[Finding]:
    """What is found when the body stands in a workflow."""
    text = f"{HEAD}\n@workflow\n{kind} flow(order, name, names, url, a, b, c):\n{textwrap.indent(body, '    ')}\n"
    tail = "    await Sleep(1)\n" if kind == "async def" else "    yield from Sleep(1)\n"
    return [finding for finding in lint_text(text + tail) if finding.excused is None]


def rules_of(body: str, kind: str = "def") -> list[str]:
    return [finding.rule for finding in inside(body, kind)]


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_each_rule_finds_its_example(rule: Rule):
    """The bad example is found under the rule, once, with its line; what is to be written instead is not found."""
    found = [finding for finding in inside(rule.bad) if finding.rule == rule.id]
    assert len(found) == 1, inside(rule.bad)
    assert found[0].what
    assert inside(rule.good) == []


def test_every_hazard_is_a_rule():
    """What the guard knows, lint knows."""
    assert {hazard.rule for hazard in HAZARDS} <= set(RULES)
    assert all(rule.why and rule.instead for rule in RULES.values())


FOUND = [
    ("clock", "x = datetime.now()"),
    ("clock", "x = time.localtime()"),
    ("clock", "from time import monotonic as m\nx = m()"),
    ("clock", "clock = time.time\nx = clock()"),
    ("clock", "x = [time.time() for _ in names]"),
    ("clock", "x = sorted(names, key=lambda n: time.time())"),
    ("clock", "x = f'{time.time()}'"),
    ("random", "x = random.Random().random()"),
    ("random", "import secrets\nx = secrets.token_hex()"),
    ("random", "import numpy as np\nx = np.random.rand()"),
    ("environment", "x = os.environ.get('A')"),
    ("environment", "from os import environ as e\nx = e['A']"),
    ("environment", "x = os.getcwd()"),
    ("files", "x = open(name).read()"),
    ("files", "p = Path(name) / 'a'\nx = p.read_text()"),
    ("files", "x = (Path(name) / 'a').parent.exists()"),
    ("files", "import shutil\nshutil.rmtree(name)"),
    ("network", "import httpx\nx = httpx.get(url)"),
    ("process", "os.system('make')"),
    ("threads", "import threading\nthreading.Thread(target=print).start()"),
    ("global-state", "global SEEN\nSEEN = [name]"),
    ("global-state", "x = list(SEEN)"),
    ("global-state", "SEEN[0] = name"),
    ("set-order", "x = list(set(names))"),
    ("set-order", "s = set(names)\nfor n in s:\n    pass"),
    ("set-order", "s = set(names) - {name}\nx = [n for n in s]"),
    ("set-order", "x = ', '.join({n for n in names})"),
    ("set-order", "s = set(names)\nx = s.pop()"),
    ("set-order", "yield from Map(charge, {*names})"),
    ("set-order", "s: set[str] = a\nfor n in s:\n    pass"),
    ("set-order", "for n in a.keys() - b.keys():\n    pass"),
    ("identity", "x = id(order)"),
    ("forgotten-yield", "Sleep(5)"),
    ("forgotten-yield", "refund_all(order)"),
    ("forgotten-yield", "charge.options(timeout=5)(order)"),
    ("forgotten-yield", "receipt = charge(order)\nif receipt.ok:\n    pass"),
    ("forgotten-yield", "receipt = charge(order)"),
    ("forgotten-yield", "if charge(order):\n    pass"),
    ("forgotten-yield", "x = f'{charge(order)}'"),
    ("forgotten-yield", "x = Now() > a"),
    ("forgotten-yield", "if a:\n    return charge(order)"),
    ("forgotten-yield", "for x in refund_all(order):\n    pass"),
    ("alien-yield", "yield [charge(a), charge(b)]"),
    ("alien-yield", "yield charge"),
    ("alien-yield", "yield from charge"),
    ("alien-yield", "yield"),
    ("alien-yield", "yield 5"),
    ("alien-yield", "yield charge.fn(order)"),
    ("alien-yield", "x = yield from charge.options(timeout=5).fn(order)"),
    ("alien-yield", "yield remember(order)"),
    ("alien-yield", "yield print(order)"),
    ("alien-yield", "def plain(n):\n    if n:\n        return f'{n}'\nyield plain(order)"),
    ("swallowed-cancel", "try:\n    yield charge(order)\nexcept:\n    pass"),
    ("swallowed-cancel", "try:\n    yield charge(order)\nexcept (ValueError, BaseException) as e:\n    x = e"),
    ("swallowed-cancel", "with suppress(Exception):\n    yield charge(order)"),
    ("finally-yield", "try:\n    yield charge(a)\nfinally:\n    for n in names:\n        yield charge(n)"),
]


@pytest.mark.parametrize(("rule", "body"), FOUND)
def test_what_is_found(rule: str, body: str):
    """Whatever an import is called, whatever stands around it."""
    assert rule in rules_of(body)


CLEAN = [
    "x = time.localtime(a)",
    "x = random.Random(7).random()",
    "rng = yield from Random()\nx = rng.random()",
    "x = yield from SideEffect(lambda: time.time())",
    "x = yield from SideEffect(time.time)",
    "def read():\n    return os.environ['A']\nx = yield from SideEffect(read)",
    "x = datetime.fromtimestamp(a)",
    "x = uuid.UUID(a), uuid.uuid5(uuid.NAMESPACE_URL, a)",
    "time = yield from Now()\nx = time.time()",
    "x = os.path.join(name, 'a')",
    "x = Path(name).with_suffix('.txt').name",
    "try:\n    yield charge(a)\nexcept subprocess.CalledProcessError:\n    pass",
    "x = sorted(set(names))",
    "x = len(set(names)), max({*names}), name in {'a', 'b'}",
    "for n in {1, 2, 3}:\n    pass",
    "x = {n for n in set(names)}",
    "x = sum(n for n in set(names))",
    "s = set(names)\ns = sorted(s)\nfor n in s:\n    pass",
    "c = charge(order)\nyield from c",
    "cs = [charge(n) for n in names]\nyield from All(cs)",
    "c = charge(order)\nyield from First(a=c, b=Sleep(5))",
    "t = yield from Spawn(refund_all(order))\nyield from Cancel(t)",
    "yield from Map(lambda n: charge(n), names)",
    "yield from All(refund_all(n) for n in names)",
    "undo = []\nundo.append(stop())\nyield from undo.pop()",
    "c = yield from NewCallback(str)\nx = c.token\ny = yield from c",
    "x = charge if a else deploy\nyield from x(order)",
    "try:\n    yield charge(order)\nexcept Exception:\n    yield stop()\n    raise",
    "try:\n    yield charge(order)\nexcept Cancelled:\n    return\nexcept Exception:\n    pass",
    "try:\n    x = int(a)\nexcept Exception:\n    x = 0",
    "try:\n    yield charge(order)\nfinally:\n    yield stop()",
    "try:\n    yield charge(order)\nfinally:\n    yield from Publish('done', True)\n    yield stop()",
    "seen = []\nseen.append(name)",
    "def make(n):\n    return charge(n)\nyield make(order)",
    "def choose(n, m):\n    return n or m\nyield choose(charge(a), deploy(b))",
    "class Slot:\n    def fn(self):\n        return charge(1)\nyield Slot().fn()",
    "hash = name.encode\nx = hash()",
    "def helper(n):\n    yield from charge(n)\nyield from helper(1)",
    "def numbers():\n    yield 1\n    yield 2\nfor n in numbers():\n    yield from charge(n)",
]


@pytest.mark.parametrize("body", CLEAN)
def test_what_is_left_alone(body: str):
    """Sound code, however close it looks."""
    assert inside(body) == []


def test_async_workflows():
    """`await` is what `yield from` is; a command not awaited is found, asyncio's own too."""
    assert rules_of("await charge(order)\nasync def more():\n    await stop()\nawait more()", "async def") == []
    assert rules_of("charge(order)", "async def") == ["forgotten-yield"]
    assert rules_of("await asyncio.sleep(1)", "async def") == ["sleep"]
    assert rules_of("return charge(order)", "async def") == ["forgotten-yield"]


def only(text: str) -> list[tuple[str, int, str]]:
    return [(finding.rule, finding.line, finding.workflow) for finding in lint_text(textwrap.dedent(text))]


def test_only_workflow_code_is_looked_at():
    """Steps and code that no workflow calls may do as they like; helpers are looked at through whoever calls them."""
    text = """\
        import time
        import dalsegno as d
        @d.step
        def work(): return time.time()
        def unused(): return time.time()
        def stamp(): return time.time()
        def branch(item):
            yield d.Sleep(item)
            return stamp()
        def shielded():
            try:
                yield d.Sleep(1)
            except Exception:
                pass
        @d.workflow(name="f")
        def flow():
            yield work()
            yield d.Map(branch, [1])
            yield from d.Shield(shielded())
        """
    assert only(text) == [("clock", 6, "flow")]


def test_names_mean_what_they_mean_where_they_stand():
    """A local name hides an import, another module's `workflow` is no workflow, an alias is seen through."""
    text = """\
        from time import time as now
        from dalsegno import workflow as wf, Sleep
        from elsewhere import workflow
        @workflow
        def not_ours():
            yield now()
        @wf
        def ours(open):
            open()
            yield Sleep(now())
        @wf
        def hidden():
            now = 5
            yield Sleep(now)
        """
    assert only(text) == [("clock", 10, "ours")]


def test_a_shared_helper_is_reported_once():
    """Two workflows that call one helper make one finding of it."""
    text = """\
        import time
        from dalsegno import workflow, Sleep
        def stamp(): return time.time()
        @workflow
        def one():
            yield Sleep(stamp())
        @workflow
        def two():
            yield Sleep(stamp())
        """
    assert only(text) == [("clock", 3, "one")]


def test_comments_excuse_with_a_reason():
    """On the line or alone above it; several rules in one; in the middle of a long expression too."""
    good = "x = time.time()  # dalsegno: ignore[clock] a test of the guard"
    above = "# dalsegno: ignore[clock, random] a test of the guard\nx = time.time(), random.random()"
    long = "x = max(\n    time.time(),  # dalsegno: ignore[clock] a test of the guard\n    1,\n)"
    for body in (good, above, long):
        assert inside(body) == []
    excused = [finding for finding in lint_text(f"{HEAD}\n@workflow\ndef f():\n    {good}\n    yield Sleep(x)\n")]
    assert [finding.excused for finding in excused] == ["a test of the guard"]


@pytest.mark.parametrize(
    ("comment", "rule", "said"),
    [
        ("# dalsegno: ignore[clock]", "bad-ignore", "no reason"),
        ("# dalsegno: ignore because", "bad-ignore", "names no rule"),
        ("# dalsegno: ignore[time] because", "bad-ignore", "no rule"),
        ("# dalsegno: ignore[uuid] because", "unused-ignore", "nothing of uuid"),
    ],
)
def test_comments_that_excuse_nothing(comment: str, rule: str, said: str):
    """A comment without reason, without rule, of an unknown rule or to no purpose is found, and excuses nothing."""
    found = inside(f"x = time.time()  {comment}")
    assert {finding.rule for finding in found} == {"clock", rule}
    assert said in next(finding.what for finding in found if finding.rule == rule)
