"""The model pipeline on the real digits: deployed after an approval, untouched after a rejection."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno import Engine, Permanent, TimedOut, collect
from dalsegno.examples import pipeline
from dalsegno.examples.pipeline import TRAINERS, Approval, Predictor, Rejected, train_and_deploy

CANDIDATES = sorted(TRAINERS)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine that serves the pipeline."""
    with Engine(f"lmdb:{tmp_path / 'store'}", workflows=collect(pipeline)) as engine:
        yield engine


def test_the_best_candidate_is_deployed(engine: Engine, tmp_path: Path):
    """After the approval the best model is served, as plain JSON, and scores what it scored as a candidate."""
    target = tmp_path / "served" / "model.json"
    run = engine.start(train_and_deploy, str(tmp_path / "work"), str(target), CANDIDATES, id="digits")
    run.signal("approval", Approval(granted=True, by="Ada"))
    deployed = run.result(timeout=60)
    scores = run.state["scores"]
    assert sorted(scores) == CANDIDATES
    assert deployed.accuracy == max(scores.values()) > 0.95
    assert (deployed.path, deployed.by) == (str(target), "Ada")
    assert json.loads(target.read_text())["name"] == deployed.candidate


def test_another_candidate_may_be_chosen(engine: Engine, tmp_path: Path):
    """The person may prefer a candidate that is not the best."""
    run = engine.start(train_and_deploy, str(tmp_path / "work"), str(tmp_path / "m.json"), CANDIDATES, id="digits")
    run.signal("approval", Approval(granted=True, by="Ada", choice="bayes"))
    assert run.result(timeout=60).candidate == Predictor(str(tmp_path / "m.json")).name == "bayes"


@pytest.mark.parametrize(
    "answer", [Approval(granted=False, by="Ada"), Approval(granted=True, by="Ada", choice="oracle")]
)
def test_a_rejection_leaves_what_is_served_alone(engine: Engine, tmp_path: Path, answer: Approval):
    """When the person says no, or chooses what is not there, the run fails with `Rejected` and nothing is deployed."""
    target = tmp_path / "model.json"
    target.write_text("what was served before")
    run = engine.start(train_and_deploy, str(tmp_path / "work"), str(target), ["ridge"], id="digits")
    run.signal("approval", answer)
    with pytest.raises(Rejected, match="Ada"):
        run.result(timeout=60)
    assert target.read_text() == "what was served before"


def test_nobody_answers(engine: Engine, tmp_path: Path):
    """Without an answer in time the run ends with `TimedOut`."""
    patience = timedelta(milliseconds=50)
    run = engine.start(train_and_deploy, str(tmp_path / "work"), str(tmp_path / "m"), ["ridge"], 0, patience, id="d")
    with pytest.raises(TimedOut):
        run.result(timeout=60)


def test_an_unknown_candidate_fails_at_once(engine: Engine, tmp_path: Path):
    """A candidate that nobody can train is a final failure, and the others are cancelled."""
    run = engine.start(train_and_deploy, str(tmp_path / "work"), str(tmp_path / "m"), ["ridge", "oracle"], id="digits")
    with pytest.raises(Permanent, match="oracle"):
        run.result(timeout=60)


def test_what_is_deployed_is_verified(tmp_path: Path):
    """A deployed file that is not the approved model is found out."""
    dataset = pipeline.prepare.fn(str(tmp_path), 0)
    ridge = pipeline.train.fn("ridge", dataset, str(tmp_path))
    with pytest.raises(Permanent, match="scores"):
        pipeline.verify.fn(ridge.path, dataset, 0.5)


def test_steps_may_be_repeated(tmp_path: Path):
    """A step that a crash made run twice leaves the very same files."""
    files = []
    for _ in range(2):
        dataset = pipeline.prepare.fn(str(tmp_path), 0)
        files.append(Path(pipeline.train.fn("logistic", dataset, str(tmp_path)).path).read_bytes())
    assert files[0] == files[1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["digits.npz", "logistic.json"]


def test_by_hand(tmp_path: Path):
    """From a terminal: the scores are shown, the answer is taken, and asking again finds the same deployment."""
    folder = tmp_path / "new" / "folder"
    command = [sys.executable, "-m", "dalsegno.examples", "pipeline", str(folder)]
    for answer in ("y\n", ""):
        done = subprocess.run(command, input=answer, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "Deployment(candidate='logistic'" in done.stdout
    assert (folder / "model.json").is_file()
