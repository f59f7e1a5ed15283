"""Programs made real: a `Program` becomes a workflow that an engine can run.

performance = as_workflow(program)
with Simulation(performance.workflows) as simulation:
    simulation.start(performance.workflow).result()
    performance.ledger.ran  # the step bodies that really ran
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import Any

import attrs

from dalsegno.core.commands import (
    All,
    BranchOutcome,
    Callback,
    Cancel,
    Checkpoint,
    Command,
    ContinueAsNew,
    First,
    Info,
    Map,
    NewCallback,
    Now,
    Patched,
    Publish,
    Random,
    Receive,
    RunInfo,
    Scope,
    Send,
    Shield,
    SideEffect,
    Sleep,
    Spawn,
    Task,
    Uuid,
    Winner,
)
from dalsegno.core.definitions import Definition, WorkflowDefinition, step, workflow
from dalsegno.core.engine.bodies import step_context
from dalsegno.core.errors import Cancelled
from dalsegno.core.policies import Completion, Retry
from dalsegno.testing import operations as p

Flow = Generator[Command[Any], Any, Any]

RETRY = Retry(max_attempts=3, initial=1, backoff=2, jitter=0)


class Broken(Exception):
    """What failing steps and code of a program raise."""


@attrs.frozen
class BodyRun:
    """One call of a step's body. `key` is the step's idempotency key."""

    key: str
    attempt: int
    step: str
    kind: str


@attrs.define
class Ledger:
    """What step bodies really did, whatever the histories say."""

    ran: list[BodyRun] = attrs.field(factory=list)
    tokens: dict[str, p.Ask] = attrs.field(factory=dict)
    chance: Callable[[], int] = attrs.field(factory=lambda: itertools.count().__next__)

    def note(self, name: str, kind: str) -> int:
        """Note that a body runs; answers the attempt."""
        context = step_context()
        self.ran.append(BodyRun(context.idempotency_key, context.attempt, name, kind))
        return context.attempt


class Performance:
    """A program as workflows: `workflow` is the program itself, `workflows` all that an engine needs to run it."""

    def __init__(self, program: p.Program, ledger: Ledger | None = None) -> None:
        self.program = program
        self.ledger = ledger or Ledger()

        @workflow(name="program")
        def main(round: int = 0) -> Flow:
            return [round, (yield from Cast(self, (), round).block(program.main))]

        @workflow(name="part")
        def part(body: p.Block, round: int = 0) -> Flow:
            return [round, (yield from Cast(self, (body,), round).block(body))]

        self.workflow: WorkflowDefinition[..., Any] = main
        self.part: WorkflowDefinition[..., Any] = part
        self.workflows: list[Definition] = [main, part]

    def work(self, op: p.Work) -> Command[Any]:
        """The step of a `Work`."""

        def body(value: int, fails: int) -> list[Any]:
            if self.ledger.note(op.name, op.kind) <= fails:
                raise ConnectionError(op.name)
            return [op.name, value]

        once, idempotent = op.kind == "once", op.kind == "idempotent"
        return step(name=op.name, retry=RETRY, once=once, idempotent=idempotent)(body)(op.value, op.fails)

    def break_(self, op: p.Break) -> Command[Any]:
        """The step of a `Break`."""

        def body() -> None:
            self.ledger.note(op.name, "plain")
            raise Broken(op.name)

        return step(name=op.name)(body)()

    def hand_out(self, token: str, op: p.Ask) -> Command[Any]:
        """A step that gives a callback's token to the outside."""

        def body(token: str) -> None:
            self.ledger.note("hand out", "plain")
            self.ledger.tokens[token] = op

        return step(name="hand out")(body)(token)


def as_workflow(program: p.Program) -> Performance:
    """Make a workflow of a program."""
    return Performance(program)


class Cast:
    """One run's view of a performance: what each operation does, by its class."""

    def __init__(self, performance: Performance, args: tuple[Any, ...], round: int) -> None:
        self.performance, self.args, self.round = performance, args, round

    def block(self, block: p.Block) -> Flow:
        """Do one operation after another."""
        answers = []
        for op in block:
            answers.append((yield from self.do(op)))
        return answers

    def branch(self, block: p.Block) -> Any:
        """A block as a branch: a plain command where it is a single one, a generator otherwise."""
        match block:
            case (p.Work() as op,):
                return self.performance.work(op)
            case (p.Nap() as op,):
                return Sleep(op.seconds)
            case (p.Take() as op,):
                return Receive(op.signal, int, timeout=op.timeout)
        return self.block(block)

    def do(self, op: p.Op) -> Flow:
        """Do one operation."""
        match op:
            case p.Work():
                return (yield self.performance.work(op))
            case p.Break():
                return (yield self.performance.break_(op))
            case p.Nap():
                return (yield Sleep(op.seconds))
            case p.Take():
                return (yield Receive(op.signal, int, timeout=op.timeout))
            case p.Show():
                return (yield Publish(op.key, op.value))
            case p.Change():
                return (yield Patched(op.name))
            case p.Mark():
                return (yield Checkpoint())
            case p.Fail():
                raise Broken(op.word)
            case p.Read():
                return (yield from self.read(op))
            case p.Post():
                return (yield from self.post(op))
            case p.Ask():
                callback: Callback[int] = yield NewCallback(int)
                yield self.performance.hand_out(callback.token, op)
                return (yield callback)
            case p.Restart():
                if self.round < op.times:
                    yield ContinueAsNew(*self.args, self.round + 1)
                return None
        return (yield from self.compound(op))

    def compound(self, op: p.Op) -> Flow:
        """Do an operation that holds others."""
        match op:
            case p.Child():
                return (yield self.performance.part.options(on_parent_close=op.policy)(op.body))
            case p.Together():
                return (yield All([self.branch(block) for block in op.branches]))
            case p.Each():
                return (yield from self.each(op))
            case p.Race():
                made = [self.branch(block) for block in op.branches]
                named = {f"k{at}": branch for at, branch in enumerate(made)}
                won: Winner[Any] = yield First(**named) if op.named else First(*made)
                return [won.key, won.value]
            case p.Aside():
                task: Task[Any] = yield Spawn(self.branch(op.body))
                meanwhile = yield from self.block(op.meanwhile)
                if op.then == "leave":
                    return meanwhile
                return [meanwhile, (yield task if op.then == "await" else Cancel(task))]
            case p.Scoped():
                return (yield Scope(self.branch(op.body)))
            case p.Shielded():
                return (yield Shield(self.branch(op.body)))
            case p.Guard():
                return (yield from self.guard(op))
        raise TypeError(f"{op!r} is not an operation")

    def each(self, op: p.Each) -> Flow:
        """A `Map`, with or without a policy."""
        if op.tolerated is None and op.enough is None:
            return (yield Map(self.branch, op.branches, concurrency=op.concurrency))
        completion = Completion(min_successful=op.enough, tolerated_failures=op.tolerated)
        outcomes: list[BranchOutcome[Any]] = yield Map(
            self.branch, op.branches, concurrency=op.concurrency, completion=completion
        )
        return [[o.status, o.value if o.error is None else told(o.error)] for o in outcomes]

    def guard(self, op: p.Guard) -> Flow:
        """A `try` statement."""
        last: Any = None
        try:
            value = yield from self.block(op.body)
        except Exception as error:
            if op.rescue is None or (isinstance(error, Cancelled) and not op.stubborn):
                raise
            value = [told(error), (yield from self.block(op.rescue))]
        finally:
            if op.finally_:
                last = yield from self.block(op.finally_)
        return [value, last]

    def post(self, op: p.Post) -> Flow:
        """A `Send`."""
        info: RunInfo = yield Info()
        to = {"self": info.workflow_id, "parent": info.parent_id or info.workflow_id, "nobody": "nobody"}[op.to]
        return (yield Send(to, op.signal, op.value))

    def read(self, op: p.Read) -> Flow:
        """A question."""
        match op.what:
            case "now":
                now = yield Now()
                info: RunInfo = yield Info()
                return (now - info.started_at).total_seconds()
            case "uuid":
                return (yield Uuid())
            case "random":
                return (yield Random()).randrange(1000)
            case "round":
                return (yield Info()).attempt
        return (yield SideEffect(self.performance.ledger.chance))


def told(error: BaseException | None) -> str:
    """An error as a program's result shows it."""
    return f"{type(error).__name__} {error}" if isinstance(error, Broken) else type(error).__name__
