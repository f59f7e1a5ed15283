"""Conditions on local variables: a small language that can only look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import attrs
import pytest

from dalsegno.core.errors import BadOption
from dalsegno.tools.bounded import SHOWN_MAX, shown
from dalsegno.tools.conditions import Condition


@dataclass
class Item:
    sku: str
    ran: int = 0

    @property
    def price(self) -> int:
        self.ran += 1
        return 5


@attrs.frozen(slots=True)
class Slotted:
    a: int


class Named(NamedTuple):
    b: int


NAMES: dict[str, Any] = {
    "total": 7, "items": [Item("A7"), Item("B1")], "by": {"x": [1, 2]}, "none": None, "slot": Slotted(3), "n": Named(4)
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "total > 5",
        "0 < total <= 7",
        "total == 7 and not none",
        "none is None or missing",
        "items[0].sku == 'A7'",
        "len(items) == 2",
        "by['x'][-1] == 2",
        "2 in by['x']",
        "total in [1, 7]",
        "slot.a + 1 == 4",
        "n.b - 1 == 3",
        "-total < 0",
    ],
)
def test_what_is_true(text: str):
    """Names, attributes, indices, literals, comparisons and boolean operators mean what they mean in Python."""
    assert Condition(text)(NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "open('x')",
        "items.pop()",
        "len(items, 1)",
        "len(*items)",
        "[x for x in items]",
        "(lambda: 1)",
        "total := 3",
        "total * 10 ** 9",
        "f'{total}'",
        "total >",
        "await total",
        "1 if total else 2",
        "x = 3",
        "a" * 2000,
        "(" * 300,
    ],
)
def test_what_is_refused(text: str):
    """Whatever could run code, or is not in the language, is refused when it is read."""
    with pytest.raises(BadOption):
        Condition(text)


def test_what_cannot_be_told_is_false():
    """A name or index that is not there, and values that cannot be compared, are no error while searching."""
    for text in (
        "missing > 1",
        "items[9].sku == 1",
        "total < 'x'",
        "total.x == 1",
        "none[0] == 1",
        "'a' + 'b' == 'ab'",
    ):
        assert not Condition(text)(NAMES)
        with pytest.raises(BadOption):
            Condition(text).value(NAMES)


def test_no_property_is_run():
    """Reading an attribute runs no code of the workflow's."""
    assert not Condition("items[0].price == 5")(NAMES)
    assert NAMES["items"][0].ran == 0


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_values_are_shown_within_bounds():
    """Whatever a variable holds, what is shown of it is short, printable and no error."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for value in (Rude(), [Rude()] * 9, "x" * 10**6, b"\x1b" * 10**6, list(range(10**6)), deep, endless, 10**5000):
        assert len(shown(value)) <= SHOWN_MAX
        assert "\x1b" not in shown(value)
    assert shown(Rude()) == "(Rude, whose repr raises RuntimeError)"
    assert shown([Item("a")] * 9).endswith("… 9 in all]")
    assert shown({3, 1, 2}) == "{1, 2, 3}"
    assert shown((1,)) == "(1,)"
    assert shown(set()) == "set()"
    assert "0x" not in shown(object())
    assert shown(Item("a")) == "Item(sku='a', ran=0)"
    assert shown(Named(4)) == "Named(b=4)"
    assert shown({"a": {"b": {"c": {"d": {"e": 1}}}}}).count("{") == 5
