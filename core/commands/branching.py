"""Commands that run one branch: beside this one, apart in the history, or where no cancellation reaches it."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

from dalsegno.core.commands.command import HISTORIES_SAY, Branch, Command, T_co
from dalsegno.core.errors import BadOption


@attrs.frozen(slots=True, eq=False, init=False)
class Spawn(Command["Task[T_co]"]):
    """Start a branch beside this one and answer at once with a `Task`, which can be yielded later for its value.

    A workflow that returns waits for the tasks it has not waited for; what such a task raised is reported in the run's
    last event, for nobody is there to catch it. It does not wait for a child with `on_parent_close="abandon"`.

    >>> from dalsegno import Flow, Sleep, step, workflow
    >>> from dalsegno.testing import Simulation
    >>> @step
    ... def bake() -> str:
    ...     return "cake"
    >>> @workflow
    ... def party() -> Flow[str]:
    ...     baking = yield from Spawn(bake())
    ...     yield from Sleep(3600)
    ...     return (yield from baking)
    >>> with Simulation([party]) as simulation:
    ...     simulation.start(party).result()
    'cake'
    """

    kind: ClassVar[str] = "spawn"
    branch: Any = attrs.field()

    def __init__(self, branch: Branch[T_co]) -> None:
        self.__attrs_init__(branch)


@attrs.frozen(slots=True, eq=False)
class Task(Command[T_co]):
    """What `Spawn` answers. Yield it to wait for the branch's value, as often as you like; what the branch raised is
    raised there, `Cancelled` where it was cancelled. `Cancel` takes it.

    >>> from dalsegno import Flow, Sleep, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def twice() -> Flow[list[None]]:
    ...     task = yield from Spawn(Sleep(3600))
    ...     return [(yield from task), (yield from task)]
    >>> with Simulation([twice]) as simulation:
    ...     simulation.start(twice).result(), simulation.elapsed
    ([None, None], 3600.0)
    """

    __module__ = HISTORIES_SAY

    kind: ClassVar[str] = "task"
    id: str

    @property
    def name(self) -> str:
        return self.id


@attrs.frozen(slots=True, eq=False)
class Cancel(Command[None]):
    """Cancel a spawned task and wait until its clean-up is done. A task that has ended stays as it is. Raises
    `BadOption` for anything but a `Task`.

    >>> from dalsegno import Cancelled, Flow, Sleep, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def enough() -> Flow[str]:
    ...     task = yield from Spawn(Sleep(86400))
    ...     yield from Cancel(task)
    ...     try:
    ...         yield from task
    ...     except Cancelled:
    ...         return "cancelled"
    >>> with Simulation([enough]) as simulation:
    ...     simulation.start(enough).result(), simulation.elapsed
    ('cancelled', 0.0)
    """

    kind: ClassVar[str] = "cancel"
    task: Task[Any]

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.task, Task):
            raise BadOption(f"Cancel({self.task!r}): takes the Task that Spawn answered")

    @property
    def name(self) -> str:
        return self.task.id


@attrs.frozen(slots=True, eq=False, init=False)
class Scope(Command[T_co]):
    """Run a branch of which, once it has ended, only the outcome is replayed: recovery costs what is open. What the
    branch raises is raised here, and recorded, too.

    >>> from dalsegno import Flow, step, workflow
    >>> from dalsegno.testing import Simulation
    >>> @step
    ... def count(page: int) -> int:
    ...     return 100 + page
    >>> def chapter(pages: int) -> Flow[int]:
    ...     words = 0
    ...     for page in range(pages):
    ...         words += yield from count(page)
    ...     return words
    >>> @workflow
    ... def book() -> Flow[int]:
    ...     return (yield from Scope(chapter(10)))
    >>> with Simulation([book]) as simulation:
    ...     simulation.start(book).result()
    1045
    """

    kind: ClassVar[str] = "scope"
    branch: Any = attrs.field()

    def __init__(self, branch: Branch[T_co]) -> None:
        self.__attrs_init__(branch)


@attrs.frozen(slots=True, eq=False, init=False)
class Shield(Command[T_co]):
    """Run a branch that a cancellation does not reach; the cancellation is raised at the next yield after it.

    >>> from dalsegno import Cancelled, Flow, Sleep, workflow
    >>> from dalsegno.testing import Simulation
    >>> def transfer() -> Flow[str]:
    ...     yield from Sleep(3600)
    ...     return "transferred"
    >>> @workflow
    ... def pay() -> Flow[str]:
    ...     done = yield from Shield(transfer())
    ...     try:
    ...         yield from Sleep(3600)
    ...     except Cancelled:
    ...         return f"{done}, then cancelled"
    >>> with Simulation([pay]) as simulation:
    ...     run = simulation.start(pay)
    ...     simulation.at(60, run.cancel)
    ...     run.result(), simulation.elapsed
    ('transferred, then cancelled', 3600.0)
    """

    kind: ClassVar[str] = "shield"
    branch: Any = attrs.field()

    def __init__(self, branch: Branch[T_co]) -> None:
        self.__attrs_init__(branch)
