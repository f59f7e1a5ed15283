"""The contract of a store outside of pytest: every promise is a test for unittest too, and a broken one has a name."""

from __future__ import annotations

import unittest
from collections.abc import Sequence

import attrs
import pytest

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.store import Backend, RunRecord, Transition, Verdict
from dalsegno.testing.backend_contract import BackendContract


def run(make: type[MemoryBackend]) -> unittest.TestResult:
    """Hold a store to the contract, as unittest does it."""

    class Case(BackendContract, unittest.TestCase):
        def setUp(self) -> None:
            self.first = make()

        def open_backend(self) -> Backend:
            return self.first.another()

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    return result


class ForgetsEpochs(MemoryBackend):
    """Takes whatever is committed for the newest lease's."""

    def commit(self, transitions: Sequence[Transition]) -> list[Verdict]:
        newest = [self.record(transition.run) for transition in transitions]
        return super().commit(
            [
                attrs.evolve(transition, epoch=record.epoch) if record is not None else transition
                for transition, record in zip(transitions, newest, strict=True)
            ]
        )


class ClaimsNothing(MemoryBackend):
    """Gives nobody a run."""

    def claim(self, runs: Sequence[int], owner: str) -> list[RunRecord]:
        return []


def test_unittest_runs_every_promise():
    """A good store passes; what does not apply to it is skipped and says why."""
    result = run(MemoryBackend)
    assert result.wasSuccessful(), result.failures + result.errors
    promises = [name for name in dir(BackendContract) if name.startswith("test_")]
    assert result.testsRun == len(promises) > 40
    assert all(reason for _, reason in result.skipped)


@pytest.mark.parametrize(
    ("broken", "promise"), [(ForgetsEpochs, "a_claim_shuts_out_the_one_before"), (ClaimsNothing, "claim")]
)
def test_a_broken_promise_has_a_name(broken: type[MemoryBackend], promise: str):
    """What a store does wrong is told by the names of the tests that fail."""
    result = run(broken)
    assert not result.wasSuccessful()
    assert any(promise in test.id() for test, _ in [*result.failures, *result.errors])
