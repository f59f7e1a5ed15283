"""The same again: one seed, another store, another hash seed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalsegno.core.store import open_store
from dalsegno.testing.operations import Program, Script
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import programs, scripts
from tests.properties import hash_seeds

SEEDS = st.integers(0, 2**16)


@given(programs(), scripts(), SEEDS)
def test_one_seed_writes_one_history(program: Program, script: Script, seed: int):
    """Two simulations with one seed write the same histories, byte for byte, and run the same bodies."""
    first, second = Performance(program), Performance(program)
    assert Player(first, script, seed=seed).play() == Player(second, script, seed=seed).play()
    assert first.ledger.ran == second.ledger.ran


@settings(max_examples=max(5, settings().max_examples // 6))  # each one makes a store on disk
@given(programs(), scripts(), SEEDS)
def test_memory_and_lmdb_keep_the_same(program: Program, script: Script, seed: int):
    """The histories of a program in memory and on disk are the same, byte for byte."""
    in_memory = Player(Performance(program), script, seed=seed).play()
    with tempfile.TemporaryDirectory() as folder, open_store(f"lmdb:{folder}/store", durability="relaxed") as store:
        assert Player(Performance(program), script, seed=seed, store=store).play() == in_memory


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    """What three processes, each with another hash seed, made of the same programs."""
    found = {}
    for seed in ("0", "1", "31337"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.properties.hash_seeds", str(settings().max_examples // 2)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        found[seed] = done.stdout.strip()
    return found


def test_the_hash_seed_is_in_no_history(digests: dict[str, str]):
    """Three processes with different hash seeds write the same histories of the same programs."""
    assert len(set(digests.values())) == 1, digests


def test_the_digest_tells_histories_apart():
    """The digest that is compared is one of histories: other programs have another one."""
    assert hash_seeds.digest_of([Program(())]) != hash_seeds.digest_of([])
    assert len(hash_seeds.digest_of([])) == len(hashlib.sha256().hexdigest())
