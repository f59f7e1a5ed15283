"""What a workflow can come to call, read from its code before it runs: for the determinism guard on CPython 3.11.

There the guard has nothing but a profile function, which costs microseconds for every step. Most workflows do not need
it: they build commands, append to lists and compute, and whoever reads their code sees that nothing they can call is a
suspect. So the guard reads first, once for every code, and sets the profile function only where there is a doubt. (From
3.12 on there is `sys.monitoring`, and none of this is used. So the words of bytecode below are those of 3.11.)

What a function can call it has to get somewhere: by a name of its module, which is looked up; from a module or a class
so found; from its closure; by making it. Those are followed: functions, and classes with all their methods and
properties, unless they belong to the standard library, whose suspects are known by name. Everything else is a doubt: a
function that was an argument or lay in a dict, a method of an object made elsewhere (but for those that lists, strings,
dates and the like have), an import. A doubt costs time and nothing else: the profile function then looks at every call.

As on 3.12, a property or an operator of an object is not seen where the class is nowhere named in the workflow's code.
A name that is bound anew while a guard is on is read as it was when the guard first saw it.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final
from uuid import UUID

from dalsegno.core.commands import SideEffect
from dalsegno.testing.suspects import Suspects, is_watched

UNKNOWN: Final = object()

MOST: Final = 500
"""So many functions are read for one workflow; what reaches more is taken for doubtful."""

_PLAIN: Final = (
    *(bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, deque, Counter, OrderedDict),
    *(defaultdict, date, datetime, time, timedelta, Decimal, UUID, PurePath, re.Pattern, re.Match, BaseException),
)

KNOWN_METHODS: Final = frozenset(name for kind in _PLAIN for name in dir(kind)) - {
    "now",
    "utcnow",
    "today",
    "time",
    "__call__",
}
"""Methods that mean no harm whatever object they are called on, unless somebody takes pains to mislead."""

_HARMLESS: Final = (
    *(ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType),
    *(MethodWrapperType, ModuleType, WrapperDescriptorType),
)
"""What does nothing by being named: descriptors, and modules, of which the attributes are looked up."""

_OPAQUE: Final = frozenset({eval, exec, compile, __import__, getattr, globals, locals, vars, breakpoint, input})
"""What is got by these cannot be read from code."""

GENERATED: Final = "<attrs generated"
"""How the names of files begin whose code attrs has written."""

_MACHINERY: Final = frozenset({"attr", "attrs"})
"""Libraries whose functions in other people's classes only store and compare."""


class Doubt(Exception):
    """Something was met that might call anything."""


class Foresight:
    """Reads code, and remembers what came of it."""

    def __init__(self, suspects: Suspects) -> None:
        self._suspects = suspects
        self._verdicts: dict[Any, bool] = {}
        self._kept: list[
            Any
        ] = []  # what verdicts are kept under by identity must not be gone and another be in its place

    def clears(self, generator: Any) -> bool:
        """Whether a generator or coroutine that has not begun yet can call no suspect."""
        code = getattr(generator, "gi_code", None) or getattr(generator, "cr_code", None)
        if code is None:
            return False
        frame = getattr(generator, "gi_frame", None) or getattr(generator, "cr_frame", None)
        if frame is None:
            return False
        closure: Mapping[str, Any] = {}
        if code.co_freevars:
            seen = frame.f_locals
            closure = {name: seen[name] for name in code.co_freevars if name in seen}
        key = (id(code), *_shapes(closure.values(), 0)) if closure else id(code)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = self._read(code, frame.f_globals, closure)
            self._kept.append((code, closure))
        return verdict

    def _read(self, code: CodeType, names: Mapping[str, Any], closure: Mapping[str, Any]) -> bool:
        reading = Reading(self._suspects)
        try:
            reading.code(code, names, closure)
        except Exception:  # a doubt, or code such as was never thought of: that is to be watched, and not to fail here
            return False
        return True


def _shapes(values: Any, depth: int) -> Iterator[Any]:
    """What of a closure decides what code can call: functions by their code, and what else can be called by itself."""
    for value in values:
        if isinstance(value, FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)] if depth < 5 else []
            yield (id(value.__code__), *_shapes(cells, depth + 1))
        elif callable(value) or isinstance(value, ModuleType):
            yield id(value)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # looking is all there is to do
    except ValueError:
        return False
    return True


class Reading:
    """One reading: raises `Doubt`, or gets to the end of everything that can be reached."""

    def __init__(self, suspects: Suspects) -> None:
        self._suspects = suspects
        self._seen: set[Any] = set()
        self._own: dict[int, frozenset[str]] = {}

    def code(
        self, code: CodeType, names: Mapping[str, Any], closure: Mapping[str, Any], made: frozenset[str] = frozenset()
    ) -> None:
        """Read a code object. `closure` are the values of its free variables, as far as they are known; `made` are the
        free variables that hold functions whose code is read where they are made."""
        key = (id(code), *(id(value) for value in closure.values()))
        if key in self._seen:
            return
        self._seen.add(key)
        if len(self._seen) > MOST:
            raise Doubt
        instructions = [each for each in dis.get_instructions(code) if each.opname not in ("RESUME", "EXTENDED_ARG")]
        made |= _functions_made(code, instructions)
        before: Any = UNKNOWN
        callee = False  # whether the next instruction loads what will be called
        generated = code.co_filename.startswith(GENERATED)
        for instruction, following in pairwise([*instructions, None]):
            assert instruction is not None
            word, what = instruction.opname, instruction.argval
            value: Any = UNKNOWN
            if word in ("LOAD_GLOBAL", "LOAD_NAME"):
                value = self._global(instruction, names, callee)
            elif word in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FAST"):
                value = closure.get(what, UNKNOWN) if word != "LOAD_FAST" else UNKNOWN
                if value is not UNKNOWN:
                    self.value(value)
                known = what in made or isinstance(value, FunctionType | BuiltinFunctionType | type)
                if callee and not known and not generated:
                    raise Doubt
            elif word in ("LOAD_ATTR", "LOAD_METHOD"):
                value = self._attribute(before, what, names if word == "LOAD_METHOD" else None)
            elif word in ("IMPORT_NAME", "LOAD_BUILD_CLASS") or callee or _decorates(word, following):
                raise Doubt
            elif word == "LOAD_CONST" and isinstance(what, CodeType) and before is not SideEffect:
                inner = {name: closure[name] for name in what.co_freevars if name in closure}
                self.code(what, names, inner, made & frozenset(what.co_freevars))
            before, callee = value, word == "PUSH_NULL"

    def _global(self, instruction: dis.Instruction, names: Mapping[str, Any], callee: bool) -> Any:
        name = instruction.argval
        value = names.get(name, vars(builtins).get(name, UNKNOWN))
        if value is UNKNOWN:
            raise Doubt
        called = instruction.opname == "LOAD_GLOBAL" and bool((instruction.arg or 0) & 1)
        if callee and (called or not _is_ours(value)):
            raise Doubt  # what a call answers is called, or an attribute of it
        if called and not (callable(value) or isinstance(value, ModuleType)):
            raise Doubt
        self.value(value)
        return value

    def _attribute(self, of: Any, name: str, called_in: Mapping[str, Any] | None) -> Any:
        if isinstance(of, ModuleType | type):
            try:
                value = getattr(of, name)
            except Exception as error:  # whatever a class of theirs does when it is asked
                raise Doubt from error
            self.value(value)
            return value
        if of is not UNKNOWN and _is_ours(of):
            if name == "fn":
                raise Doubt  # the function behind a definition
        elif called_in is not None and (name not in KNOWN_METHODS or name in self._own_methods(called_in)):
            raise Doubt
        return UNKNOWN

    def _own_methods(self, names: Mapping[str, Any]) -> frozenset[str]:
        """What the classes that a module knows define: an object of theirs may be meant, and not a list or a string."""
        found = self._own.get(id(names))
        if found is None:
            kinds = [value for value in list(names.values()) if isinstance(value, type) and not _is_ours(value)]
            bases = {base for kind in kinds for base in kind.__mro__ if _root(base) not in sys.stdlib_module_names}
            found = self._own[id(names)] = frozenset(name for base in bases for name in vars(base) if name[:2] != "__")
        return found

    # --- values ------------------------------------------------------------------------------------------------------

    def value(self, value: Any) -> None:
        """Read what a name stands for."""
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, BuiltinFunctionType):
            if value in self._suspects.builtins or value in _OPAQUE:
                raise Doubt
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, MethodType):
            self.value(value.__func__)
        elif isinstance(value, _HARMLESS) or _is_ours(value):
            return
        elif callable(value):
            call = type(value).__call__
            if not isinstance(call, FunctionType):
                raise Doubt  # functools.partial, and others of C
            self._function(call)
        elif any(code in self._suspects.codes for code in _codes_of(type(value))):
            raise Doubt  # os.environ

    def _function(self, function: FunctionType) -> None:
        if function.__code__ in self._suspects.codes:
            raise Doubt
        if not is_watched(function) or _root(function) in _MACHINERY or id(function) in self._seen:
            return
        self._seen.add(id(function))
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for default in defaults:
            if callable(default):
                self.value(default)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        closure = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
        self.code(function.__code__, function.__globals__, closure)

    def _class(self, kind: type) -> None:
        if id(kind) in self._seen or _is_ours(kind):
            return
        self._seen.add(id(kind))
        for base in kind.__mro__:
            if _root(base) in sys.stdlib_module_names:
                maker = vars(base).get("__init__")
                if isinstance(maker, FunctionType) and maker.__code__ in self._suspects.codes:
                    raise Doubt  # threading.Thread
            elif not _is_ours(base):
                for name, member in list(vars(base).items()):
                    for function in _functions_of(member):
                        generated = function.__code__.co_filename.startswith(GENERATED)
                        if name != "__hash__" and not (generated and name == "__repr__"):
                            self._function(function)  # these two ask for hashes and ids, and mean no harm


def _functions_made(code: CodeType, instructions: list[dis.Instruction]) -> frozenset[str]:
    """The local variables that only ever hold a function made here."""
    stored: dict[str, bool] = {}
    for before, instruction in pairwise(instructions):
        if instruction.opname in ("STORE_FAST", "STORE_DEREF"):
            name = instruction.argval
            stored[name] = stored.get(name, True) and before.opname == "MAKE_FUNCTION"
    gathering = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + gathering]
    return frozenset(name for name, made in stored.items() if made and name not in arguments)


def _decorates(word: str, following: dis.Instruction | None) -> bool:
    """Whether a function was made to be decorated, which is a call without further arguments."""
    return word == "MAKE_FUNCTION" and following is not None and (following.opname, following.arg) == ("PRECALL", 0)


def _functions_of(member: Any) -> list[FunctionType]:
    """The functions behind what stands in a class."""
    parts = (member.fget, member.fset, member.fdel) if isinstance(member, property) else (member,)
    plain = [getattr(part, "__func__", part) for part in parts]
    return [part for part in plain if isinstance(part, FunctionType)]


def _codes_of(kind: type) -> Iterator[CodeType]:
    for base in kind.__mro__:
        for member in list(vars(base).values()):
            if isinstance(member, FunctionType):
                yield member.__code__


def _root(thing: Any) -> str:
    return str(getattr(thing, "__module__", None) or "").partition(".")[0]


def _is_ours(value: Any) -> bool:
    """Whether something is dalsegno's own, and so does nothing but what a workflow may."""
    kind = value if isinstance(value, type) else type(value)
    module = str(kind.__module__)
    return _root(kind) == "dalsegno" and not module.startswith("dalsegno.examples")
