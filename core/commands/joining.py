"""Commands that run several branches and wait for them: for all, for all of many, for the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Literal, overload

import attrs

from dalsegno.core.commands.command import HISTORIES_SAY, A, B, Branch, C, Command, D, E, T_co, is_branch
from dalsegno.core.errors import BadOption
from dalsegno.core.policies import Completion


@attrs.frozen(slots=True, eq=False, init=False)
class All(Command[T_co]):
    """Run branches side by side and answer with all their values: a tuple for `All(a, b)`, a list for `All([…])`.

    The first failure cancels the others, waits for their clean-up and is raised. `All()` answers `()`. Raises
    `BadOption` for what is neither branches nor one list of them.

    >>> from dalsegno import Flow, Sleep, workflow
    >>> from dalsegno.testing import Simulation
    >>> def after(hours: int) -> Flow[int]:
    ...     yield from Sleep(hours * 3600)
    ...     return hours
    >>> @workflow
    ... def both() -> Flow[tuple[int, int]]:
    ...     return (yield from All(after(2), after(1)))
    >>> with Simulation([both]) as simulation:
    ...     simulation.start(both).result(), simulation.elapsed
    ((2, 1), 7200.0)
    """

    kind: ClassVar[str] = "all"
    branches: tuple[Any, ...]
    as_list: bool = False

    @overload
    def __init__(self: All[tuple[A]], a: Branch[A], /) -> None: ...
    @overload
    def __init__(self: All[list[A]], branches: Iterable[Branch[A]], /) -> None: ...
    @overload
    def __init__(self: All[tuple[()]], /) -> None: ...
    @overload
    def __init__(self: All[tuple[A, B]], a: Branch[A], b: Branch[B], /) -> None: ...
    @overload
    def __init__(self: All[tuple[A, B, C]], a: Branch[A], b: Branch[B], c: Branch[C], /) -> None: ...
    @overload
    def __init__(self: All[tuple[A, B, C, D]], a: Branch[A], b: Branch[B], c: Branch[C], d: Branch[D], /) -> None: ...
    @overload
    def __init__(
        self: All[tuple[A, B, C, D, E]], a: Branch[A], b: Branch[B], c: Branch[C], d: Branch[D], e: Branch[E], /
    ) -> None: ...
    @overload
    def __init__(self: All[tuple[Any, ...]], /, *branches: Branch[Any]) -> None: ...
    def __init__(self, /, *branches: Any) -> None:
        as_list = len(branches) == 1 and not is_branch(branches[0])
        if as_list:
            if not isinstance(branches[0], Iterable):
                raise BadOption(f"All({branches[0]!r}): branches, or one list of branches")
            branches = tuple(branches[0])
        self.__attrs_init__(branches, as_list)


@attrs.frozen(slots=True)
class BranchOutcome(Generic[T_co]):
    """How one branch of a `Map` with a `Completion` ended: `index` is its item's place, `value` what it returned when
    it succeeded, `error` what it raised when it failed.

    >>> BranchOutcome(0, "succeeded", value=7)
    BranchOutcome(index=0, status='succeeded', value=7, error=None)
    """

    __module__ = HISTORIES_SAY

    index: int
    status: Literal["succeeded", "failed", "cancelled", "not started"]
    value: T_co | None = None
    error: BaseException | None = None


@attrs.frozen(slots=True, eq=False, init=False)
class Map(Command[T_co]):
    """Run `fn(item)` for every item, at most `concurrency` at a time, and answer with the values in the items' order.

    `fn` makes a branch: a `@step`, a `@workflow`, or a generator function. Without `completion` the first failure
    cancels the rest and is raised; with it the answer is a list of `BranchOutcome`, or `ToleranceExceeded` is raised.
    Empty input answers `[]`. Raises `BadOption` for arguments that cannot be meant.

    >>> from dalsegno import Flow, step, workflow
    >>> from dalsegno.testing import Simulation
    >>> @step
    ... def half(number: int) -> int:
    ...     if number % 2:
    ...         raise ValueError(f"{number} is odd")
    ...     return number // 2
    >>> @workflow
    ... def halves(numbers: list[int]) -> Flow[list[str]]:
    ...     outcomes = yield from Map(half, numbers, concurrency=2, completion=Completion(tolerated_failures=1))
    ...     return [outcome.status for outcome in outcomes]
    >>> with Simulation([halves]) as simulation:
    ...     simulation.start(halves, [2, 3, 4]).result()
    ['succeeded', 'failed', 'succeeded']
    """

    kind: ClassVar[str] = "map"
    fn: Callable[[Any], Any]
    items: tuple[Any, ...]
    concurrency: int | None = None
    completion: Completion | None = None

    @overload
    def __init__(
        self: Map[list[B]], fn: Callable[[A], Branch[B]], items: Iterable[A], *, concurrency: int | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Map[list[BranchOutcome[B]]],
        fn: Callable[[A], Branch[B]],
        items: Iterable[A],
        *,
        concurrency: int | None = None,
        completion: Completion,
    ) -> None: ...
    def __init__(
        self,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        concurrency: int | None = None,
        completion: Completion | None = None,
    ) -> None:
        if not callable(fn):
            raise BadOption(f"Map({fn!r}, …): the first argument is a function that makes a branch of an item")
        if not isinstance(items, Iterable):
            raise BadOption(f"Map(…, {items!r}): the second argument is the items, like Map(charge, orders)")
        if concurrency is not None and (isinstance(concurrency, bool) or not isinstance(concurrency, int)):
            raise BadOption(f"Map(concurrency={concurrency!r}): takes a whole number, or None for all at once")
        if concurrency is not None and concurrency < 1:
            raise BadOption(f"Map(concurrency={concurrency}): at least 1, or None for all at once")
        if completion is not None and not isinstance(completion, Completion):
            raise BadOption(f"Map(completion={completion!r}): takes a Completion, like Completion(min_successful=3)")
        self.__attrs_init__(fn, tuple(items), concurrency, completion)

    @property
    def name(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)


@attrs.frozen(slots=True)
class Winner(Generic[T_co]):
    """Which branch of a `First` ended first: its name (or its index, where branches have no names) and its value.

    >>> Winner("decision", "granted")
    Winner(key='decision', value='granted')
    """

    __module__ = HISTORIES_SAY

    key: Any
    value: T_co


@attrs.frozen(slots=True, eq=False, init=False)
class First(Command[T_co]):
    """Run branches side by side until the first one ends; the others are cancelled. Answers a `Winner`.

    The decision is recorded, never recomputed. A branch that ends first by failing wins too, and its error is raised.
    Raises `BadOption` for no branches at all, and for some with names beside some without.

    >>> from dalsegno import Flow, Receive, Sleep, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def decide() -> Flow[str]:
    ...     won = yield from First(decision=Receive("approval", str), late=Sleep(3 * 86400))
    ...     return won.key
    >>> with Simulation([decide]) as simulation:
    ...     simulation.start(decide).result()
    'late'
    """

    kind: ClassVar[str] = "first"
    branches: Mapping[Any, Any]

    @overload
    def __init__(self: First[Winner[A | B]], a: Branch[A], b: Branch[B], /) -> None: ...
    @overload
    def __init__(self: First[Winner[A | B | C]], a: Branch[A], b: Branch[B], c: Branch[C], /) -> None: ...
    @overload
    def __init__(self: First[Winner[A]], /, *branches: Branch[A]) -> None: ...
    @overload
    def __init__(self: First[Winner[Any]], /, **named: Branch[Any]) -> None: ...
    def __init__(self, /, *branches: Any, **named: Any) -> None:
        if bool(branches) == bool(named):
            raise BadOption(
                "First() of nothing would wait for ever" if not branches else "First(…): all named, or none"
            )
        held: dict[Any, Any] = dict(named) if named else dict(enumerate(branches))
        self.__attrs_init__(held)
