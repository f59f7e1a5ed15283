"""The functions that a determinism guard looks out for, found as objects; and whether a call of one is the workflow's.

`dalsegno.core.determinism` names them. Here a name becomes what the interpreter of Python sees when it is called: a
builtin, which is recognised where it is called, or the code of a function, which is recognised when it starts.

Whether a call was made by workflow code is told from the stack. Going outwards from the call there must come a frame of
the interpreter (`dalsegno.core.interpreter`), with nothing of the engine, of a codec or of a logger in between: those
may look at the clock. The place to name is the innermost frame that is the user's own, not the standard library's.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import random
import sys
import sysconfig
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import attrs

from dalsegno.core.determinism import HAZARDS, IDENTITY, Hazard

THIRD_PARTY_ROOTS: Final = frozenset({"numpy", "requests", "httpx", "aiohttp", "urllib3", "boto3", "psycopg", "redis"})
"""What they do ends in functions of the standard library, which are known; the source check names them."""

QUIET: Final = frozenset(
    {
        *("importlib", "_frozen_importlib", "_frozen_importlib_external", "zipimport", "encodings", "zoneinfo"),
        *("logging", "warnings", "traceback", "linecache", "inspect", "bdb", "pdb"),
    }
)
"""Parts of the standard library that look at clocks and files without telling the workflow: importing, logging."""

TRANSPARENT: Final = ("dalsegno.core.commands", "dalsegno.core.definitions", "dalsegno.testing.")
"""Our own modules that call back into user code, or stand between it and the interpreter."""

SITE: Final = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


@attrs.frozen
class Suspect:
    """A function to look out for. `generator`: it is a method, and only of this one object (the global generator)."""

    name: str
    hazard: Hazard
    owner: Any = None
    only_unseeded: bool = False


@attrs.frozen
class Place:
    """Where in the user's files a call stands."""

    file: str
    line: int


@attrs.frozen
class Suspects:
    """All functions to look out for: builtins by themselves, others by their code."""

    builtins: dict[Any, Suspect]
    codes: dict[CodeType, Suspect]


@functools.cache
def suspects() -> Suspects:
    """Everything the table of hazards names in the standard library."""
    builtins: dict[Any, Suspect] = {}
    codes: dict[CodeType, Suspect] = {}
    for hazard in HAZARDS:
        for name in hazard.calls:
            if name.partition(".")[0] not in THIRD_PARTY_ROOTS:
                for found, function in _resolved(name, hazard):
                    _add(builtins, codes, Suspect(found, hazard), function)
        for name in hazard.reads:
            for method in ("__getitem__", "__iter__", "__len__"):
                for _, function in _resolved(f"{name}.{method}", hazard):
                    _add(builtins, codes, Suspect(name, hazard), function)
        if hazard.rule == "random":  # SystemRandom() seeds itself by the same code, and draws from the machine
            codes[random.Random.__init__.__code__] = Suspect("random.Random", hazard, only_unseeded=True)
    return Suspects(builtins, codes)


def _add(builtins: dict[Any, Suspect], codes: dict[CodeType, Suspect], suspect: Suspect, function: Any) -> None:
    if isinstance(function, type):
        function = function.__dict__.get("__init__")
    if isinstance(function, MethodType):
        suspect = attrs.evolve(suspect, owner=function.__self__)
        function = function.__func__
    if isinstance(function, BuiltinFunctionType):
        builtins.setdefault(function, suspect)
    elif isinstance(function, FunctionType):
        codes.setdefault(inspect.unwrap(function).__code__, suspect)


def _resolved(name: str, hazard: Hazard) -> Iterator[tuple[str, Any]]:
    """The functions a name of the table means. What this release of Python does not have is left out."""
    module, rest = _module_of(name)
    if module is None:
        return
    if rest != ["*"]:
        found: Any = module
        for part in rest:
            found = getattr(found, part, None)
        yield name, found
        return
    for key, value in vars(module).items():
        full = f"{module.__name__}.{key}"
        public = not key.startswith("_") and full not in hazard.harmless
        if public and getattr(value, "__module__", None) in (module.__name__, None) and not _is_harmless_class(value):
            yield full, value


def _is_harmless_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException | random.Random)


def _module_of(name: str) -> tuple[ModuleType | None, list[str]]:
    parts = name.split(".")
    if len(parts) == 1:
        return importlib.import_module("builtins"), parts
    for count in range(len(parts) - 1, 0, -1):
        try:
            return importlib.import_module(".".join(parts[:count])), parts[count:]
        except ImportError:
            continue
    return None, parts


def applies(suspect: Suspect, frame: FrameType) -> bool:
    """Whether the call whose own frame this is concerns what is meant: the global generator, not one with a seed."""
    names = frame.f_locals
    if suspect.only_unseeded:
        return names.get("x") is None
    return suspect.owner is None or suspect.owner in (names.get("self"), names.get("cls"))


def counts(suspect: Suspect, frame: FrameType) -> bool:
    """Whether it matters that this frame calls a builtin. What the standard library's own functions call does not, for
    they are known by their names; `id` and `hash` matter where a workflow asks for them itself, not in a library's
    table or in the `__hash__` of a class."""
    if (frame.f_globals.get("__name__") or "").partition(".")[0] in sys.stdlib_module_names:
        return False
    code = frame.f_code
    return suspect.hazard is not IDENTITY or not (
        code.co_name == "__hash__" or code.co_filename.startswith(("<", *SITE))
    )


def place_in_workflow(frame: FrameType | None) -> Place | None:
    """The user's line that made a call, if workflow code driven by the interpreter made it; else None."""
    inner: Place | None = None
    found: Place | None = None
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        root = module.partition(".")[0]
        file = frame.f_code.co_filename
        if root == "dalsegno" and not module.startswith("dalsegno.examples"):
            if module.startswith("dalsegno.core.interpreter."):
                return found or inner
            if not module.startswith(TRANSPARENT):
                return None
        elif root in QUIET:
            return None
        elif root not in sys.stdlib_module_names:
            place = Place(file, frame.f_lineno)
            inner = inner or place
            if not file.startswith(("<", *SITE)):  # generated code (`__init__` of a data class) is nobody's line
                found = found or place
        frame = frame.f_back
    return None


def is_watched(function: FunctionType) -> bool:
    """Whether a function's own calls are to be looked at: it is neither the standard library's nor ours."""
    module = function.__globals__.get("__name__") or ""
    root = module.partition(".")[0]
    ours = root == "dalsegno" and not module.startswith("dalsegno.examples")
    return not ours and root not in sys.stdlib_module_names
