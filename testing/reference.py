"""An oracle for programs: what must come of one, worked out without events, histories, stores or replay.

A program is interpreted directly, as a small world in which things wait for things. Where several things can happen at
one moment (step bodies end, equal deadlines pass, mail arrives) a seeded draw decides, so an outcome that depends on
such an order shows itself by differing between draws: `expected` answers only what all of many draws agree on.

    run_reference(program, script, order=3)     # what this order leads to
    expected(program, script)                   # what every order leads to, or None
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs

from dalsegno.testing import operations as p
from dalsegno.testing.reference_joins import Fork, RaceOf, Several, Some, Under, Unreached
from dalsegno.testing.reference_waits import Apart, Attempt, Marking, Pause, Receiving, Sending
from dalsegno.testing.reference_world import CANCELLED, Run, Stop, Trouble, World

Flow = Generator[Any, Any, Any]

ORDERS = 15
RACE_ORDERS = 100
"""So many draws have to agree; more of a program with a race, which may go another way in one draw of ten."""


@attrs.frozen
class Expected:
    """What came of a program: the word for its status, its value or the name of its error, and what it published."""

    status: str
    value: Any
    error: str
    state: dict[str, Any]


def expected(program: p.Program, script: p.Script = p.CALM) -> Expected | None:
    """What must come of a program, or None where that depends on the order in which things happen."""
    first = run_reference(program, script, order=0)
    draws = RACE_ORDERS if f"{p.Race.__name__}(" in repr(program) else ORDERS
    agreed = all(run_reference(program, script, order=order) == first for order in range(1, draws))
    return first if agreed else None


def run_reference(program: p.Program, script: p.Script = p.CALM, *, order: int = 0) -> Expected:
    """What comes of a program when chance decides in this way."""
    world = World(order)
    main = world.start(lambda run: _rounds(run, program.main, ()))
    for stimulus in script.stimuli:
        world.live(lambda: _newest(main).ending is not None, until=stimulus.at)
        if _newest(main).ending is not None:
            break
        if stimulus.what == "signal":
            _newest(main).post(("signal", stimulus.signal, stimulus.value))
        elif stimulus.what == "cancel":
            _newest(main).post(("cancel",))
        else:
            raise TypeError(f"the oracle does not know {stimulus}")
    world.live()
    for last_word in ("cancel", "terminate"):
        for run in reversed(world.runs):
            if run.ending is None:
                run.post((last_word,))
        world.live()
    last = _newest(main)
    assert last.ending is not None
    return Expected(last.ending.status, last.ending.value, last.ending.error, last.state)


def _newest(run: Run) -> Run:
    while run.next is not None:
        run = run.next
    return run


def _rounds(run: Run, block: p.Block, args: tuple[Any, ...]) -> Flow:
    answers = yield from _block(run, block)
    return [run.generation - 1, answers]


def _block(run: Run, block: p.Block) -> Flow:
    answers = []
    for op in block:
        answers.append((yield from _do(run, op)))
    return answers


def _branch(run: Run, block: p.Block) -> Any:
    """A branch: something to wait for where it is a single simple thing, a flow otherwise."""
    match block:
        case (p.Work() as op,):
            return Attempt([op.name, op.value], op.fails)
        case (p.Nap() as op,):
            return Pause(op.seconds)
        case (p.Take() as op,):
            return Receiving(op.signal, op.timeout)
    return _block(run, block)


def _do(run: Run, op: p.Op) -> Flow:
    match op:
        case p.Work():
            return (yield Attempt([op.name, op.value], op.fails))
        case p.Break():
            return (yield Attempt(None, 0, f"Broken {op.name}"))
        case p.Nap():
            return (yield Pause(op.seconds))
        case p.Take():
            return (yield Receiving(op.signal, op.timeout))
        case p.Post():
            return (yield Sending(op.signal, op.value, op.to == "nobody"))
        case p.Mark():
            return (yield Marking())
        case p.Show():
            yield Unreached()  # a cancellation that a shield has held back is raised here, and nothing is shown
            run.state[op.key] = op.value
            return None
        case p.Read():
            yield Unreached()
            return run.generation if op.what == "round" else run.world.now - run.begun
        case p.Fail():
            raise Trouble(f"Broken {op.word}")
        case p.Restart():
            if run.generation <= op.times:
                yield Stop()
            return None
    return (yield from _compound(run, op))


def _compound(run: Run, op: p.Op) -> Flow:
    match op:
        case p.Child():
            body = op.body
            return (yield Apart(lambda child: _rounds(child, body, ()), op.policy))
        case p.Together():
            return (yield Several([_branch(run, block) for block in op.branches]))
        case p.Each() if op.tolerated is None and op.enough is None:
            return (yield Several(op.branches, lambda block: _branch(run, block), op.concurrency))
        case p.Each():
            return (yield Some(op.branches, lambda block: _branch(run, block), op.concurrency, op.tolerated, op.enough))
        case p.Race():
            index, value = yield RaceOf([_branch(run, block) for block in op.branches])
            return [f"k{index}" if op.named else index, value]
        case p.Aside():
            task = yield Fork(_branch(run, op.body))
            meanwhile = yield from _block(run, op.meanwhile)
            if op.then == "leave":
                return meanwhile
            return [meanwhile, (yield task.awaited() if op.then == "await" else task.cancelled())]
        case p.Scoped():
            return (yield Under(_branch(run, op.body)))
        case p.Shielded():
            return (yield Several([_branch(run, op.body)], shielded=True))
        case p.Guard():
            return (yield from _guard(run, op))
    raise TypeError(f"the oracle does not know {op!r}")


def _guard(run: Run, op: p.Guard) -> Flow:
    # Not with `finally`, which Python would run also when a flow that was left standing is collected.
    value, failure = None, None
    try:
        value = yield from _block(run, op.body)
    except Trouble as trouble:
        failure = trouble
    if failure is not None and op.rescue is not None and (failure.text != CANCELLED or op.stubborn):
        text, failure = failure.text, None
        try:
            value = [text, (yield from _block(run, op.rescue))]
        except Trouble as trouble:
            failure = trouble
    last = (yield from _block(run, op.finally_)) if op.finally_ else None
    if failure is not None:
        raise failure
    return [value, last]
