"""Commands that have work done: a step, a child workflow, a function called once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import attrs

from dalsegno.core.commands.command import Command, T_co
from dalsegno.core.errors import BadOption
from dalsegno.core.policies import StepOptions, WorkflowOptions


@attrs.frozen(slots=True, eq=False)
class RunStep(Command[T_co]):
    """Run a step body outside the workflow and answer with its result. Made by calling a `@step` function; what that
    raises, after its retries, is raised at the yield.

    >>> from dalsegno import step
    >>> @step
    ... def charge(amount: int) -> str:
    ...     return f"charged {amount}"
    >>> charge(5)
    RunStep(step='charge', args=(5,), kwargs={})
    """

    kind: ClassVar[str] = "step"
    step: str
    fn: Callable[..., Any] = attrs.field(repr=False)
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    options: StepOptions = attrs.field(factory=StepOptions, repr=False)

    @property
    def name(self) -> str:
        return self.step

    def arguments(self) -> tuple[Any, ...]:
        return (self.args, self.kwargs)


@attrs.frozen(slots=True, eq=False)
class StartChild(Command[T_co]):
    """Run another workflow with a history of its own, and answer with its result. Made by calling a `@workflow`; what
    the child raises is raised at the yield, and `RunConflict` where its `id=` is taken.

    >>> from dalsegno import Flow, Sleep, workflow
    >>> @workflow
    ... def nap(hours: int) -> Flow[None]:
    ...     yield from Sleep(hours * 3600)
    >>> nap(8)
    StartChild(workflow='nap', args=(8,), kwargs={})
    """

    kind: ClassVar[str] = "child"
    workflow: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    options: WorkflowOptions = attrs.field(factory=WorkflowOptions, repr=False)

    @property
    def name(self) -> str:
        return self.workflow

    def arguments(self) -> tuple[Any, ...]:
        return (self.args, self.kwargs)


@attrs.frozen(slots=True, eq=False)
class SideEffect(Command[T_co]):
    """Call `fn` once, record what it returned, and answer the same on every replay. For a cheap read of something
    nondeterministic; anything that may fail or take long is a step. An exception of `fn` is raised, and recorded.

    A crash before the record is durable has `fn` called again. Raises `EncodeError` for a value that cannot be stored.

    >>> import os
    >>> from dalsegno import Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def machine() -> Flow[str]:
    ...     return (yield from SideEffect(lambda: os.name))
    >>> with Simulation([machine]) as simulation:
    ...     simulation.start(machine).result() == os.name
    True
    """

    kind: ClassVar[str] = "side effect"
    fn: Callable[[], T_co]

    def __attrs_post_init__(self) -> None:
        if not callable(self.fn):
            raise BadOption(f"SideEffect({self.fn!r}): takes a function, like SideEffect(lambda: os.cpu_count())")

    @property
    def name(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)
