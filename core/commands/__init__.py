"""Commands: what a workflow yields. Requests, in the imperative; nothing happens by making one.

Each is a small frozen attrs class, generic in its result, and says three things about itself:

* `kind`: the word for it in histories and messages;
* `name`: what it is about (a step, a signal, a change), or "";
* `arguments()`: what goes into its fingerprint besides the name, and has to be the same on every replay.

`x = yield command` and `x = yield from command` mean the same at run time: `__iter__` yields the command itself and
returns what is sent back. `yield from` (or `await`, in an `async def` workflow) tells a type checker the result's type.

A *branch* is what `All`, `Map`, `First`, `Spawn`, `Scope` and `Shield` run: a command, or a generator (or coroutine)
that yields commands. Constructors check their fields, so a wrong command cannot exist.

`command` says what a command is; `work`, `waiting`, `joining`, `branching`, `telling` and `recalling` have one kind of
them each.
"""

from dalsegno.core.commands.branching import Cancel, Scope, Shield, Spawn, Task
from dalsegno.core.commands.command import NO_ARGUMENTS, Branch, Command, Flow, is_branch
from dalsegno.core.commands.joining import All, BranchOutcome, First, Map, Winner
from dalsegno.core.commands.recalling import Info, Now, Random, RunInfo, Uuid
from dalsegno.core.commands.telling import Checkpoint, ContinueAsNew, Patched, Publish, Send
from dalsegno.core.commands.waiting import Callback, NewCallback, Receive, Sleep, SleepUntil
from dalsegno.core.commands.work import RunStep, SideEffect, StartChild

__all__ = [
    "NO_ARGUMENTS",
    "All",
    "Branch",
    "BranchOutcome",
    "Callback",
    "Cancel",
    "Checkpoint",
    "Command",
    "ContinueAsNew",
    "First",
    "Flow",
    "Info",
    "Map",
    "NewCallback",
    "Now",
    "Patched",
    "Publish",
    "Random",
    "Receive",
    "RunInfo",
    "RunStep",
    "Scope",
    "Send",
    "Shield",
    "SideEffect",
    "Sleep",
    "SleepUntil",
    "Spawn",
    "StartChild",
    "Task",
    "Uuid",
    "Winner",
    "is_branch",
]
