"""Conditions on local variables, for going to where one becomes true: `total > 100 and order.items[0].sku == "A7"`.

A condition is parsed and walked, never run: there is no call but `len`, no assignment, no comprehension, so that it
can ask nothing of the world and change nothing in the workflow. Attributes are read as they are stored, so no property
is run; of the user's code only what compares values is. Names are those of local variables, innermost frame first; a
name that is not there yet makes the condition false, since going to where it becomes true begins before it exists.

    >>> is_true = Condition("len(paid) > 1 and order.amount >= 10")
    >>> is_true({"paid": [1, 2], "order": 3}), is_true({})
    (False, False)
"""

from __future__ import annotations

import ast
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from dalsegno.core.errors import BadOption
from dalsegno.tools.text import clean

LENGTH_MAX: Final = 1000  # characters; nobody types more, and the parser nests no deeper for it

_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {ast.Add: operator.add, ast.Sub: operator.sub}
_NUMBERS: Final = (int, float)
_SIZED: Final = (str, bytes, list, tuple, dict, set, frozenset)


class _Unknown(Exception):
    """A name, attribute or index that is not there."""


class Condition:
    """A parsed expression over local variables. Raises `BadOption` for what it does not know how to read."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > LENGTH_MAX:
            raise BadOption(f"a condition has at most {LENGTH_MAX} characters")
        try:
            self._body = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise BadOption(f"the condition {clean(text, 80)!r} is no expression: {error}") from error
        for node in ast.walk(self._body):
            _check(node, text)

    def value(self, names: Mapping[str, Any]) -> Any:
        """What the expression is, with these local variables. Raises `BadOption` naming what is not there."""
        try:
            return _value(self._body, names)
        except _Unknown as error:
            raise BadOption(f"{clean(self.text, 80)}: {error}") from error
        except Exception as error:  # an operator of a class of the user's, or values that cannot be compared
            raise BadOption(f"{clean(self.text, 80)}: {type(error).__name__}: {error}") from error

    def __call__(self, names: Mapping[str, Any]) -> bool:
        """Whether it is true; false where it cannot be told."""
        try:
            return bool(self.value(names))
        except Exception:
            return False


_LEAVES: Final = (ast.Name, ast.Constant, ast.expr_context, ast.boolop, ast.cmpop, ast.unaryop, ast.Add, ast.Sub)
_NODES: Final = (ast.BoolOp, ast.Compare, ast.UnaryOp, ast.Attribute, ast.Subscript, ast.List, ast.Tuple, ast.Set)


def _check(node: ast.AST, text: str) -> None:
    """Refuse what is not in the small language, when it is read and not when it is reached."""
    if isinstance(node, ast.Call):
        plain = isinstance(node.func, ast.Name) and node.func.id == "len" and len(node.args) == 1 and not node.keywords
        if plain and not isinstance(node.args[0], ast.Starred):
            return
        raise BadOption(f"{clean(text, 80)}: nothing can be called in a condition but len(…)")
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return
    if not isinstance(node, _LEAVES + _NODES):
        raise BadOption(
            f"{clean(text, 80)}: {type(node).__name__} is not for conditions; they take names, attributes, indices, "
            "literals, comparisons, and, or, not, + and - of numbers, len(…)"
        )


def _value(node: ast.AST, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            if name in names:
                return names[name]
            raise _Unknown(f"there is no local variable {name!r} here")
        case ast.Attribute(value=owner, attr=name):
            return _attribute(_value(owner, names), name)
        case ast.Subscript(value=owner, slice=index):
            return _item(_value(owner, names), _value(index, names))
        case ast.BoolOp(op=op, values=values):
            return _any_of(values, names) if isinstance(op, ast.Or) else _all_of(values, names)
        case ast.UnaryOp(op=op, operand=operand):
            found = _value(operand, names)
            return not found if isinstance(op, ast.Not) else -_number(found)
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_number(_value(left, names)), _number(_value(right, names)))
        case ast.Compare():
            return _compared(node, names)
        case ast.Call(args=[argument]):
            found = _value(argument, names)
            if isinstance(found, _SIZED):
                return len(found)
            raise _Unknown(f"len() is for {', '.join(kind.__name__ for kind in _SIZED)}")
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return [_value(item, names) for item in items]
    raise _Unknown(f"{type(node).__name__} is not for conditions")


def _all_of(values: list[ast.expr], names: Mapping[str, Any]) -> Any:
    found: Any = True
    for value in values:
        if not (found := _value(value, names)):
            return found
    return found


def _any_of(values: list[ast.expr], names: Mapping[str, Any]) -> Any:
    found: Any = False
    for value in values:
        if found := _value(value, names):
            return found
    return found


def _compared(node: ast.Compare, names: Mapping[str, Any]) -> bool:
    left = _value(node.left, names)
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, names)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True


def _attribute(owner: Any, name: str) -> Any:
    """An attribute that is stored, read without running a property; slots are descriptors of C and safe to ask."""
    try:
        found = inspect.getattr_static(owner, name)
    except AttributeError:
        raise _Unknown(f"{type(owner).__name__} has no attribute {name!r}") from None
    if inspect.ismemberdescriptor(found) or inspect.isgetsetdescriptor(found) or _is_field(owner, found):
        try:
            return found.__get__(owner, type(owner))
        except AttributeError:
            raise _Unknown(f"{name!r} is not set") from None
    if hasattr(type(found), "__get__"):
        raise _Unknown(f"{name!r} of {type(owner).__name__} is code, and is not run")
    return found


def _is_field(owner: Any, found: Any) -> bool:
    """Whether a descriptor is one of a NamedTuple's, which answers an item."""
    return isinstance(owner, tuple) and type(found).__name__ == "_tuplegetter"


def _item(owner: Any, index: Any) -> Any:
    if not isinstance(owner, str | bytes | list | tuple | dict):
        raise _Unknown(f"{type(owner).__name__} is not indexed here")
    try:
        return owner[index]
    except (LookupError, TypeError):
        raise _Unknown(f"there is no [{index!r:.40}]") from None


def _number(value: Any) -> Any:
    if isinstance(value, _NUMBERS):
        return value
    raise _Unknown("+ and - are for numbers")
