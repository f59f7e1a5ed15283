"""The greeting of the README, as it is typed there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno import Engine
from dalsegno.examples import hello


def run_hello(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "dalsegno.examples", "hello", *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.splitlines()


def test_the_crash_and_the_resume(tmp_path: Path):
    """What was greeted before the crash is not greeted again; a third start finds the result."""
    assert run_hello(tmp_path, "--crash") == (1, ["Hello, Ada!"])
    assert run_hello(tmp_path) == (0, ["Hello, Bob!", "Hello, Cyd!", "3 greeted"])
    assert run_hello(tmp_path) == (0, ["3 greeted"])


def test_the_greeting_in_one_process(capfd: pytest.CaptureFixture[str]):
    """Undisturbed, everybody is greeted once."""
    with Engine("memory:", workflows=[hello.greet_all], steps=[hello.greet]) as engine:
        assert engine.start(hello.greet_all, ["Ada", "Bob"]).result(timeout=10) == 2
    assert capfd.readouterr().out.splitlines() == ["Hello, Ada!", "Hello, Bob!"]


def test_an_unknown_example_is_one_sentence(tmp_path: Path):
    """Asked for what is not there, the examples say what is."""
    command = [sys.executable, "-m", "dalsegno.examples", "goodbye"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "usage: python -m dalsegno.examples {hello,on_dask,on_ray,pipeline,provision,seals,wages} …\n",
    )


def test_a_folder_that_can_hold_no_store_is_one_sentence(tmp_path: Path):
    """A newcomer who mistypes the path sees what is wrong with it."""
    command = [sys.executable, "-m", "dalsegno.examples", "hello", "--store", "lmdb:no/such/folder"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("dalsegno.examples hello: no/such/folder cannot be created")
    assert done.stderr.count("\n") == 1
