"""Hypothesis profiles: chosen by name, by the environment or by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.errors import InvalidArgument

from dalsegno.testing.profiles import EXAMPLES, VARIABLE, register_profiles


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    name = settings.get_current_profile_name()
    yield
    settings.load_profile(name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_environment_chooses(name: str, monkeypatch: pytest.MonkeyPatch):
    """Each profile runs as many examples as it says, without a deadline, and tells how to repeat a failure."""
    monkeypatch.setenv(VARIABLE, name)
    register_profiles()
    chosen = settings()
    assert (settings.get_current_profile_name(), chosen.max_examples) == (name, EXAMPLES[name])
    assert (chosen.deadline, chosen.print_blob) == (None, True)


def test_the_desk_is_the_default(monkeypatch: pytest.MonkeyPatch):
    """Where nobody says anything it is the quick one; another default may be given, and one that is none is refused."""
    monkeypatch.delenv(VARIABLE, raising=False)
    register_profiles()
    assert settings.get_current_profile_name() == "desk"
    register_profiles(default="night")
    assert settings.get_current_profile_name() == "night"
    with pytest.raises(InvalidArgument):
        register_profiles(default="noon")
