"""`--app package.module[:attribute]`: the user's code, looked up by name.

    --app shop.orders            every @step and @workflow at the top level of the module
    --app shop.orders:WORKFLOWS  what this name holds: a definition, a list of them, or another module
    --app shop/orders.py         a path, for those who let their shell complete it

The module is imported from the current folder as well, as `python -m` does. A `Codec` at the module's top level is the
codec for its payloads, and each `Queue` there is declared by its workers. What goes wrong is explained by where it went
wrong: no such module, an exception while it was imported (with the line of the user's file), no such name in it,
nothing in it that could be served.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import attrs

from dalsegno.core.definitions import Definition, StepDefinition, WorkflowDefinition, by_name, collect
from dalsegno.core.errors import BadOption, UnknownDefinition
from dalsegno.core.queues import Queue
from dalsegno.core.values.codec import Codec


@attrs.frozen
class App:
    """What a module offers: its workflows and steps by name, the codec its payloads are made with, and the limits of
    queues that it declares."""

    name: str
    workflows: dict[str, WorkflowDefinition[Any, Any]]
    steps: dict[str, StepDefinition[Any, Any]]
    codec: Codec
    queues: tuple[Queue, ...] = ()

    @property
    def definitions(self) -> list[Definition]:
        """All of them, for an engine."""
        return [*self.workflows.values(), *self.steps.values()]

    def workflow(self, name: str) -> WorkflowDefinition[Any, Any]:
        """The workflow of that name. Raises `UnknownDefinition`, naming those that are there."""
        if name not in self.workflows:
            there = ", ".join(sorted(self.workflows)) or "none"
            raise UnknownDefinition(f"{self.name} has no workflow {name!r}; it has {there}", name=name)
        return self.workflows[name]


def load_app(name: str) -> App:
    """Import the code that `--app` names. Raises `BadOption` saying what is missing; runs nothing but the import."""
    module_name, _, attribute = name.partition(":")
    module = _module(_dotted(module_name))
    definitions = _definitions(name, _attribute(module, attribute) if attribute else module)
    codecs = [value for value in vars(module).values() if isinstance(value, Codec)]
    named = by_name(definitions)
    return App(
        name,
        {key: found for key, found in named.items() if isinstance(found, WorkflowDefinition)},
        {key: found for key, found in named.items() if isinstance(found, StepDefinition)},
        codecs[0] if codecs else Codec(),
        _queues(module),
    )


def _queues(module: ModuleType) -> tuple[Queue, ...]:
    """The limits that a module declares. Raises `BadOption` where two of its queues have one name."""
    found: dict[str, Queue] = {}
    for name, value in vars(module).items():
        if isinstance(value, Queue) and found.setdefault(value.name, value) != value:
            raise BadOption(
                f"--app {module.__name__}: {name} is a second Queue({value.name!r}), with other limits; keep one"
            )
    return tuple(found.values())


def _dotted(name: str) -> str:
    """A path as the module it is, seen from here."""
    if not name.endswith(".py"):
        return name
    path = Path(name)
    if path.is_absolute():
        sys.path.insert(0, str(path.parent))
        return path.stem
    return ".".join(path.with_suffix("").parts)


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if not all(part.isidentifier() for part in name.split(".")):
        raise BadOption(f"--app {name!r} is no module name; write --app package.module or --app package.module:NAME")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise BadOption(
                f"--app {name}: there is no module {error.name!r}, neither installed nor in {here}"
            ) from error
        raise _import_failed(name, error) from error
    except Exception as error:
        raise _import_failed(name, error) from error


def _import_failed(name: str, error: Exception) -> BadOption:
    where = _users_line(error.__traceback__)
    return BadOption(f"--app {name}: importing it failed{where} with {type(error).__name__}: {error}")


def _users_line(found: TracebackType | None) -> str:
    """Where in the user's files it happened: the last frame outside the import machinery."""
    frames = [
        frame
        for frame in traceback.extract_tb(found)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _attribute(module: ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            names = [key for key, value in vars(module).items() if isinstance(value, Definition)]
            has = f"; it defines {', '.join(names)}" if names else ""
            raise BadOption(f"--app {module.__name__}:{path}: the module has no {part!r}{has}")
        found = getattr(found, part)
    return found


def _definitions(name: str, found: Any) -> list[Definition]:
    if isinstance(found, ModuleType):
        definitions = collect(found)
    elif isinstance(found, Definition):
        definitions = [found]
    elif isinstance(found, Iterable) and not isinstance(found, str | bytes):
        definitions = list(found)
    else:
        raise BadOption(f"--app {name} is {type(found).__name__}, not a definition, a list of them or a module")
    if not definitions:
        raise BadOption(f"--app {name}: there is no @step and no @workflow at its top level")
    return definitions
