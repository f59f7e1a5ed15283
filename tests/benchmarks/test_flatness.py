"""What counts as flat."""

from __future__ import annotations

import random

import pytest

from benchmarks.flatness import Course, Kind

BYTES = Kind("bytes", "B", noise=10)


def course(values: list[float], warm_up: float = 0.3) -> Course:
    return Course(BYTES, [float(at) for at in range(len(values))], values, warm_up)


def test_noise_is_flat():
    """Readings that waver around one value are flat, however long they do."""
    chance = random.Random(1)
    assert course([1000 + chance.gauss(0, 30) for _ in range(200)]).flat


def test_a_climb_is_not():
    """A leak that shows as a tenth of the median in the time looked at is growth, noise or not."""
    chance = random.Random(2)
    found = course([1000 + at * 0.75 + chance.gauss(0, 5) for at in range(200)])
    assert not found.flat
    assert found.growth == pytest.approx(0.75 * 139, rel=0.1)


def test_what_warms_up_does_not_count():
    """A climb that ends within the warm-up is no growth, and one that goes on is."""
    filling = [float(min(at, 60)) * 100 for at in range(200)]
    assert course(filling, 0.3).flat
    assert len(course(filling, 0.0).counted) > len(course(filling, 0.3).counted)
    assert not course([float(at) * 100 for at in range(200)], 0.3).flat


def test_a_saw_is_flat():
    """What fills and is emptied again and again is flat, though single readings are far apart."""
    assert course([1000.0 + at % 10 * 100 for at in range(400)]).flat


def test_an_outlier_moves_nothing():
    """One reading that is far off gives no other verdict."""
    assert course([*[1000.0] * 99, 9000.0]).flat


def test_falling_is_no_fault():
    """A figure that becomes smaller is flat."""
    assert course([1000.0 - at for at in range(200)]).flat


def test_too_few_readings_prove_nothing():
    """Nothing is called flat that was hardly looked at."""
    assert not course([1000.0] * 8).flat
    assert course([1000.0] * 16).flat
