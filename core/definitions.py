"""Definitions: the functions behind the names in a history. `@step` and `@workflow` make them.

Calling a definition builds a command and runs nothing; `.fn` is the plain function, for unit tests; `.options(…)` is
the same definition with other options. There is no global registry: an engine is told what it serves, and `collect`
finds the definitions of a module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable
from datetime import timedelta
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar, overload

import attrs

from dalsegno.core.commands import Command, RunStep, StartChild
from dalsegno.core.errors import BadOption, DefinitionError
from dalsegno.core.options import only
from dalsegno.core.policies import Arguments, OnParentClose, Retry, StepOptions, WorkflowOptions
from dalsegno.core.text import storable

P = ParamSpec("P")
T = TypeVar("T")

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _bounds(signature: inspect.Signature) -> tuple[int, int]:
    """How many positional arguments alone satisfy the signature: (least, most), or (1, 0) where none can."""
    parameters = signature.parameters.values()
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return (1, 0)
    positional = [p for p in parameters if p.kind in POSITIONAL]
    most = 10**6 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)
    return (sum(p.default is p.empty for p in positional), most)


@attrs.frozen(eq=False)
class Definition:
    """A named function that an engine can be given. The name is what histories know it by."""

    name: str
    fn: Callable[..., Any]
    signature: inspect.Signature = attrs.field(repr=False)
    least: int = attrs.field(repr=False)
    most: int = attrs.field(repr=False)

    def check_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise the TypeError that calling the function with these arguments would raise, at the caller's line."""
        # Counting is enough for the plain call and costs a fiftieth of binding; binding words the error.
        if kwargs or not self.least <= len(args) <= self.most:
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}{self.signature}: {error}") from None


@attrs.frozen(eq=False)
class StepDefinition(Definition, Generic[P, T]):
    """A function whose calls are recorded. Made by `@step`; calling it builds a `RunStep`."""

    step_options: StepOptions = attrs.field(factory=StepOptions)
    is_async: bool = False

    def __attrs_post_init__(self) -> None:
        if self.is_async and self.step_options.transactional:
            raise BadOption(
                f"@step {self.name} is `async def`, and transactional=True is for plain functions, which run on a "
                "thread, with a connection that belongs to it until the commit"
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> RunStep[T]:
        if kwargs or not self.least <= len(args) <= self.most:
            self.check_call(args, kwargs)
        return RunStep(self.name, self.fn, args, kwargs, self.step_options)

    def options(self, **changes: Any) -> StepDefinition[P, T]:
        """The same step with other options, for one call or many: `charge.options(timeout=5)(order)`.

        Takes what `@step` takes, besides `name`. Raises `BadOption` for values out of range, `TypeError` for unknown
        options.

        >>> @step(timeout=30)
        ... def charge(amount: int) -> str: ...
        >>> charge.options(timeout=5)(12).options.timeout
        5.0
        """
        _refuse_unknown(changes, StepOptions, f"{self.name}.options")
        return attrs.evolve(self, step_options=attrs.evolve(self.step_options, **changes))


@attrs.frozen(eq=False)
class WorkflowDefinition(Definition, Generic[P, T]):
    """A generator function (or `async def`) that yields commands. Made by `@workflow`; calling it builds a
    `StartChild`, for use inside another workflow. `engine.start(definition, …)` starts it from outside."""

    workflow_options: WorkflowOptions = attrs.field(factory=WorkflowOptions)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StartChild[T]:
        if kwargs or not self.least <= len(args) <= self.most:
            self.check_call(args, kwargs)
        return StartChild(self.name, args, kwargs, self.workflow_options)

    def options(self, **changes: Any) -> WorkflowDefinition[P, T]:
        """The same workflow with other options: `id=`, `on_parent_close=`, `timeout=`, `queue=` and so on.

        Takes what `@workflow` takes, besides `name`: `engine.start(nap.options(queue="nights", priority=5), 8)`.

        Raises `BadOption` for values out of range, `TypeError` for unknown options.

        >>> @workflow
        ... def nap(hours: int) -> Flow[None]:
        ...     yield from Sleep(hours * 3600)
        >>> nap.options(id="nap-1")(8).options.id
        'nap-1'
        """
        _refuse_unknown(changes, WorkflowOptions, f"{self.name}.options")
        return attrs.evolve(self, workflow_options=attrs.evolve(self.workflow_options, **changes))


def _refuse_unknown(given: dict[str, Any], options: type[attrs.AttrsInstance], where: str, *more: str) -> None:
    """Raise `TypeError` for an option that there is not, naming those that there are."""
    only(where, given, [*more, *(attribute.name for attribute in attrs.fields(options))])


def _refuse_definition(fn: Any, what: str) -> None:
    """Raise `DefinitionError` for a function that has been decorated already."""
    if isinstance(fn, StepDefinition):
        meant = "once is enough" if what == "step" else "decorate a plain function that yields it"
        raise DefinitionError(f"@{what}: {fn.name} is a @step already; {meant}")
    if isinstance(fn, WorkflowDefinition):
        meant = "once is enough" if what == "workflow" else "yield it from a workflow as it is"
        raise DefinitionError(f"@{what}: {fn.name} is a @workflow already; {meant}")


def _name_of(fn: Any, name: str | None, what: str) -> str:
    if name is not None:
        storable(name, f"the name of a @{what}")
    found = name if name is not None else getattr(fn, "__name__", "")
    if not isinstance(found, str) or not found or found == "<lambda>":
        raise DefinitionError(f"@{what}: {fn!r} has no name of its own; give it one with name=")
    return found


@overload
def step(fn: Callable[P, Coroutine[Any, Any, T]], /) -> StepDefinition[P, T]: ...
@overload
def step(fn: Callable[P, T], /) -> StepDefinition[P, T]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
    once: bool = False,
    idempotent: bool = False,
    long: bool = False,
    queue: str = "",
    key: str = "",
    priority: int = 0,
    delay: float | timedelta = 0,
    start_timeout: float | timedelta | None = None,
    total_timeout: float | timedelta | None = None,
    transactional: bool = False,
) -> StepDecorator: ...
def step(fn: Any = None, /, *, name: str | None = None, retry: Retry | None = None, **options: Any) -> Any:
    """Make a function a step: a piece of work whose outcome is recorded and that never runs again once it is.

    Plain functions run on the engine's step threads, `async def` ones on its event loop. `timeout` is in seconds (or a
    timedelta) and per attempt; `StepOptions` says what each option means. Raises `DefinitionError` for anything that is
    not such a function, `BadOption` for an option out of range.

    >>> @step(retry=Retry(max_attempts=3), timeout=30)
    ... def charge(amount: int) -> str:
    ...     return f"charged {amount}"
    >>> charge(5)
    RunStep(step='charge', args=(5,), kwargs={})
    >>> charge.fn(5)
    'charged 5'
    """
    _refuse_unknown(options, StepOptions, "@step", "name")
    settings = StepOptions(retry=Retry() if retry is None else retry, **options)
    decorator = StepDecorator(name, settings)
    return decorator if fn is None else decorator(fn)


@attrs.frozen
class StepDecorator:
    """What `step(…)` with options returns: apply it to the function."""

    name: str | None
    settings: StepOptions

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> StepDefinition[P, T]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> StepDefinition[P, T]: ...
    def __call__(self, fn: Any, /) -> Any:
        _refuse_definition(fn, "step")
        if not callable(fn) or isinstance(fn, type):
            raise DefinitionError(f"@step takes a function, not {fn!r}")
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DefinitionError(
                f"@step {fn.__qualname__} is a generator function: a step does its work and returns. "
                "To yield commands, make it a @workflow, or leave it plain and use `yield from`."
            )
        signature = inspect.signature(fn)
        least, most = _bounds(signature)
        definition: StepDefinition[Any, Any] = StepDefinition(
            _name_of(fn, self.name, "step"), fn, signature, least, most, self.settings, inspect.iscoroutinefunction(fn)
        )
        return definition


@overload
def workflow(fn: Callable[P, Generator[Command[Any], Any, T]], /) -> WorkflowDefinition[P, T]: ...
@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, T]], /) -> WorkflowDefinition[P, T]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    timeout: float | timedelta | None = None,
    arguments: Arguments = "strict",
    id: str | None = None,
    on_parent_close: OnParentClose = "cancel",
    queue: str = "",
    key: str = "",
    priority: int = 0,
    delay: float | timedelta = 0,
    dedup: str | None = None,
) -> WorkflowDecorator: ...
def workflow(fn: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a generator function, or an `async def` that awaits only commands, a workflow.

    `timeout` bounds the whole run, in seconds or as a timedelta; `WorkflowOptions` says what each option means. Raises
    `DefinitionError` for anything else, where it is decorated, `BadOption` for an option out of range.

    >>> @workflow
    ... def nap(hours: int) -> Flow[str]:
    ...     yield Sleep(hours * 3600)
    ...     return "rested"
    """
    _refuse_unknown(options, WorkflowOptions, "@workflow", "name")
    decorator = WorkflowDecorator(name, WorkflowOptions(**options))
    return decorator if fn is None else decorator(fn)


@attrs.frozen
class WorkflowDecorator:
    """What `workflow(…)` with options returns: apply it to the function."""

    name: str | None
    settings: WorkflowOptions

    @overload
    def __call__(self, fn: Callable[P, Generator[Command[Any], Any, T]], /) -> WorkflowDefinition[P, T]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> WorkflowDefinition[P, T]: ...
    def __call__(self, fn: Any, /) -> Any:
        _refuse_definition(fn, "workflow")
        if inspect.isasyncgenfunction(fn):
            raise DefinitionError(
                f"@workflow {fn.__qualname__} is an async generator: `await` the commands and leave out the `yield`."
            )
        if not (inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn)):
            what = getattr(fn, "__qualname__", repr(fn))
            raise DefinitionError(
                f"@workflow {what} is not a generator function and not `async def`: a workflow yields commands. "
                "If it does the work itself, make it a @step and yield it from a workflow."
            )
        signature = inspect.signature(fn)
        least, most = _bounds(signature)
        definition: WorkflowDefinition[Any, Any] = WorkflowDefinition(
            _name_of(fn, self.name, "workflow"), fn, signature, least, most, self.settings
        )
        return definition


def collect(*modules: ModuleType) -> list[Definition]:
    """The steps and workflows defined at the top level of modules, in the order they stand there.

    `Engine(store, workflows=collect(my_module))` serves them all; the command line's `--app` does the same. Raises
    `DefinitionError` for what is no module.

    >>> from dalsegno.examples import audit
    >>> [definition.name for definition in collect(audit)][:2]
    ['list_packages', 'measure_file']
    """
    found: dict[int, Definition] = {}
    for module in modules:
        if not isinstance(module, ModuleType):
            raise DefinitionError(f"collect({module!r}): takes modules, like collect(shop) after `import shop`")
        for value in vars(module).values():
            if isinstance(value, Definition):
                found.setdefault(id(value), value)
    return list(found.values())


def listed(given: Iterable[Definition], option: str) -> list[Definition]:
    """What an engine was given as `workflows=` or `steps=`. Raises `DefinitionError` for one definition or a module
    where several were meant.

    >>> listed([], "workflows")
    []
    """
    if isinstance(given, Definition):
        raise DefinitionError(f"{option}={given.name}: takes several, like {option}=[{given.name}]")
    if isinstance(given, ModuleType):
        name = given.__name__.rpartition(".")[-1]
        raise DefinitionError(f"{option}={name}: takes definitions, and collect({name}) finds those of a module")
    if not isinstance(given, Iterable):
        raise DefinitionError(f"{option}={given!r}: takes a list of definitions")
    return list(given)


def by_name(definitions: Iterable[Definition]) -> dict[str, Definition]:
    """The definitions by name; two different functions with one name are refused with `DefinitionError`."""
    named: dict[str, Definition] = {}
    for definition in definitions:
        if not isinstance(definition, Definition):
            raise DefinitionError(f"{definition!r} is neither a @step nor a @workflow; decorate it first")
        other = named.setdefault(definition.name, definition)
        if other.fn is not definition.fn:
            raise DefinitionError(
                f"two definitions are called {definition.name!r}: {_where(other)} and {_where(definition)}; "
                "give one of them name="
            )
    return named


def _where(definition: Definition) -> str:
    code = getattr(inspect.unwrap(definition.fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(definition.fn)
