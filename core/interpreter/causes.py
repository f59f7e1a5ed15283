"""Guessing why code left its recorded path: one sentence that a reader can act on, made when there is a mismatch.

What is known at that moment: the event, what waits, what is open around it, how the code ended if it did; and the code
itself, whose names are read (never run) to tell a step that is gone from one that is called elsewhere. Each guess looks
for one kind of change and answers "" when it does not see it; the first that answers is taken, so the surer ones stand
before the vaguer ones. A guess may be wrong; the event and both sides, which the error shows beside it, are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import attrs

from dalsegno.core.commands import StartChild
from dalsegno.core.definitions import StepDefinition, WorkflowDefinition
from dalsegno.core.errors import DecodeError
from dalsegno.core.interpreter.asked import CancelledOut, Continued, Raised, Waiting
from dalsegno.core.interpreter.joins import AllNode, FirstNode, MapNode
from dalsegno.core.interpreter.machine import Machine

UNSTEADY = "a clock, chance, the environment, the order of a set"
USUAL = f"an edit to the workflow, or something that is not the same on every replay ({UNSTEADY})"
FUNCTIONS_MAX = 300  # read for names; a workflow with more helpers than that gets a vaguer sentence


@attrs.frozen(kw_only=True)
class Case:
    """What is known. `kind` and `name` are those of the recorded command, `waiting` what is open at its id, `node` what
    else stands at that id, `nearest` the open command that comes closest, `around` the nodes it would lie in."""

    machine: Machine
    event: Any
    id: str
    kind: str
    name: str
    differs: str
    waiting: Waiting | None
    node: Any
    nearest: Waiting | None
    around: tuple[Any, ...]

    @property
    def recorded(self) -> str:
        """The recorded command in words."""
        return f"{self.kind} {self.name!r}" if self.name else self.kind


def cause_of(case: Case) -> str:
    """The likeliest cause of a mismatch."""
    cause = next(filter(None, (guess(case) for guess in GUESSES)), USUAL)
    return _forgotten_patch(case) + cause


# --- the same command, said otherwise --------------------------------------------------------------------------------

_ARGUMENTS = {
    "sleep": "its duration was changed, or is computed from a clock",
    "sleep until": "its moment was changed, or is computed from a clock",
    "receive": "the time-out of the Receive was changed",
    "send": "the target or the payload of the Send was changed",
    "race": "the branches of the First were renamed, reordered, added or removed",
}


def _arguments(case: Case) -> str:
    if case.differs == "the value returned":
        return f"the same path ends with another value: an edit after the last command, or {UNSTEADY}"
    if case.differs == "how the scope ended":
        return f"the inside of the Scope now answers something else: an edit there, or {UNSTEADY}"
    if case.differs != "arguments":
        return ""
    kind = case.waiting.kind if case.waiting is not None else case.kind
    return _ARGUMENTS.get(kind) or f"the same {kind}, called with other arguments: an edit, or in them {UNSTEADY}"


def _moved(case: Case) -> str:
    digest = getattr(case.event, "digest", None)
    if digest is None:
        return ""
    for other in case.machine.waiting.values():
        if (other.kind, other.name, other.digest) != (case.kind, case.name, digest) or other.id == case.id:
            continue
        if other.id.startswith(f"{case.id}."):
            return f"{case.recorded} was put inside {_article(case.node)}, where it has the id {other.id}"
        if case.id.startswith(f"{other.id}."):
            return f"what stood around {case.recorded} (an All, First, Map, Scope or task) was taken away"
        return f"{case.recorded} is there as id {other.id}: branches were reordered, added or removed"
    return ""


# --- something else at its place -------------------------------------------------------------------------------------


def _another_node(case: Case) -> str:
    if case.node is None or isinstance(case.node, Waiting):
        return ""
    what = "First" if case.kind == "the winner of a First" else case.recorded
    return f"{what} was replaced by {_article(case.node)}, or one was added or removed before it"


def _decision_too_many(case: Case) -> str:
    nearest = case.nearest
    if nearest is None or case.id.startswith(f"{nearest.id}."):
        return _decision_inside(case)
    if nearest.kind == "race" and case.kind != "the winner of a First":
        return "a First wants its winner recorded, and the history has none: a First was added, or an All made a First"
    if nearest.kind == "scope" and case.kind != "the end of a Scope":
        return "a Scope wants its end recorded, and the history has none: a Scope was put around these commands"
    return ""


def _decision_inside(case: Case) -> str:
    if case.nearest is not None and case.nearest.kind == "race":
        return "the First has its winner and the history goes on inside it: an All or Map was made a First"
    return ""


def _decision_gone(case: Case) -> str:
    what = {"the winner of a First": "First", "the end of a Scope": "Scope"}.get(case.kind)
    if what is None:
        return ""
    if case.differs.startswith("branch "):
        return "the branches of the First were reordered, or the one that won now waits for something else"
    return f"the {what} that stood here was taken away, or something was added or removed before it"


def _step_and_child(case: Case) -> str:
    waiting = case.waiting
    if waiting is None or {case.kind, waiting.kind} != {"step", "child"}:
        return ""
    if case.name == waiting.name:
        return f"{case.recorded} was made a {waiting.kind}"
    if isinstance(waiting.command, StartChild) and case.kind == "step":
        code = reach(case.machine.definition.fn)
        child = next((found for found in code.workflows if found.name == waiting.name), None)
        if child is not None and case.name in reach(child.fn).step_names:
            return f"{case.recorded} was moved into the child workflow {waiting.name!r}"
    return ""


# --- the end ---------------------------------------------------------------------------------------------------------


def _signal_unasked(case: Case) -> str:
    unread = [name for name, signals in case.machine.signals.items() if signals]
    nearest = case.nearest
    if case.machine.outcome is not None or case.waiting is not None or not unread:
        return ""
    if nearest is None or nearest.kind != "receive" or nearest.name in unread:
        return ""
    came = " and ".join(map(repr, unread))
    return f"the code waits for signal {nearest.name!r}, and nobody receives {came}, which came: a Receive was renamed"


def _ended(case: Case) -> str:
    outcome, closing = case.machine.outcome, case.event.closes
    if outcome is None:
        if not closing:
            return ""
        return "the code goes on where it had ended: a command or round was added at the end, or a return removed"
    if isinstance(outcome, Raised | CancelledOut):
        where = "at its end" if closing else f"before {case.recorded}"
        said = said_error(case.machine, outcome.payload)
        return f"the code now raises {said} {where}: an error is no longer caught, or is new"
    if isinstance(outcome, Continued):
        return "the code now continues as new earlier than it did"
    if closing:
        return "the code now returns where it had ended otherwise: an error is caught now, or no longer raised"
    return f"the code now returns before {case.recorded}: an early return, commands removed, or fewer rounds of a loop"


# --- more or fewer ---------------------------------------------------------------------------------------------------


def _fewer_branches(case: Case) -> str:
    if case.waiting is not None or not case.around:
        return ""
    node = case.around[-1]
    place = case.id.removeprefix(f"{node.id}.").split(".")[0]
    index = int(place) if place.isdigit() else 0
    if isinstance(node, MapNode):
        items = len(node.command.items)
        if index > items:
            return f"the Map has fewer items: item {index} is recorded, and there are {items} now"
        if index > node.begun:
            places = node.command.concurrency
            return f"the Map begins item {index} later than it did: its concurrency was lowered to {places}"
    elif isinstance(node, AllNode | FirstNode) and index > len(node.seats):
        return f"the {node.describe()} has fewer branches: number {index} is recorded, and there are {len(node.seats)}"
    return ""


_NAMED = {"step": "@step", "child": "@workflow"}


def _gone(case: Case) -> str:
    """A step or child that the code no longer names anywhere."""
    called = reach(case.machine.definition.fn)
    if case.kind not in _NAMED or case.name in (called.step_names if case.kind == "step" else called.workflow_names):
        return ""
    keep = f'{_NAMED[case.kind]}(name="{case.name}") keeps the name of one that was renamed'
    return f"nothing in the code calls {case.recorded} any more: it was renamed or removed. {keep}"


def _still_waits(case: Case) -> str:
    nearest = case.nearest
    if case.waiting is not None or nearest is None or case.event.closes:
        return ""
    what = f"the code still waits for {nearest.describe()}, which the history answers nowhere before {case.recorded}"
    inside = "a branch or an item was added" if "." in nearest.id else "it was added, or put in place of something else"
    return f"{what}: {inside}"


# --- another command -------------------------------------------------------------------------------------------------


def _another(case: Case) -> str:
    waiting = case.waiting
    if waiting is None:
        return ""
    if case.kind == waiting.kind and case.kind in ("receive", "send"):
        return f"the signal's name was changed, or one {case.kind} was added, removed or moved"
    still = f"{case.recorded} is still called elsewhere: " if case.kind in _NAMED else ""
    taken = f"another branch is taken (by an edit, {UNSTEADY})"
    return f"{still}something was added, removed or moved before it, or {taken}"


GUESSES: tuple[Callable[[Case], str], ...] = (
    _arguments,
    _moved,
    _another_node,
    _decision_too_many,
    _decision_gone,
    _step_and_child,
    _signal_unasked,
    _ended,
    _fewer_branches,
    _gone,
    _still_waits,
    _another,
)
"""From the surest to the vaguest."""


def _forgotten_patch(case: Case) -> str:
    """Said before everything else: a change this run adopted, whose `Patched` is no longer in the code."""
    adopted = [change for change, taken in case.machine.changes.items() if taken]
    if not adopted:
        return ""
    words = reach(case.machine.definition.fn).words
    gone = [change for change in adopted if change not in words]
    return f"this run took the new side of Patched({gone[0]!r}), which the code no longer asks for; " if gone else ""


def said_error(machine: Machine, payload: bytes) -> str:
    """An encoded error as its type and message."""
    try:
        error = machine.codec.describe_error(payload)
    except DecodeError:
        return "an error that cannot be read"
    said = f"{error.type.rpartition(':')[2].rpartition('.')[2]}: {error.message}"
    return f"{said[:119]}…" if len(said) > 120 else said


def _article(node: Any) -> str:
    word = node.describe() if node is not None else "branch"  # a spawned one: its Spawn waits for nothing
    return f"an {word}" if word[0] in "AEIOU" else f"a {word}"


# --- reading code ----------------------------------------------------------------------------------------------------


@attrs.define
class Reach:
    """What a workflow's code names: definitions, and strings. Found by reading code objects; nothing is called."""

    steps: list[StepDefinition[Any, Any]] = attrs.field(factory=list)
    workflows: list[WorkflowDefinition[Any, Any]] = attrs.field(factory=list)
    words: set[str] = attrs.field(factory=set)

    @property
    def step_names(self) -> set[str]:
        """Names of steps that are called somewhere."""
        return {found.name for found in self.steps}

    @property
    def workflow_names(self) -> set[str]:
        """Names of workflows that are started somewhere."""
        return {found.name for found in self.workflows}


def reach(function: Any) -> Reach:
    """Everything a function and the functions it names refer to."""
    found, seen, todo = Reach(), set[int](), [function]
    while todo and len(seen) < FUNCTIONS_MAX:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, StepDefinition):
            found.steps.append(thing)
        elif isinstance(thing, WorkflowDefinition):
            found.workflows.append(thing)
        elif isinstance(thing, list | tuple | set | frozenset):
            todo.extend(thing)
        elif isinstance(thing, dict):
            todo.extend(thing.values())
        elif isinstance(thing, str):
            found.words.add(thing)
        elif isinstance(thing, FunctionType):
            todo.extend(_named_by(thing))
    return found


def _named_by(function: FunctionType) -> Iterator[Any]:
    modules: list[ModuleType] = []
    names: set[str] = set()
    for code in _codes(function.__code__):
        names.update(code.co_names)
        yield from (const for const in code.co_consts if isinstance(const, str))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            modules.append(value)
        elif value is not None:
            yield value
    for module in modules:
        yield from (vars(module)[name] for name in names if isinstance(vars(module).get(name), _WORTH))
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from function.__defaults__ or ()


_WORTH = (StepDefinition, WorkflowDefinition, FunctionType)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)
